package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"

	"github.com/rbdwarden/rbdwarden/config"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
	"github.com/rbdwarden/rbdwarden/supervision/daemon"
	"github.com/rbdwarden/rbdwarden/supervision/memory"
	"github.com/rbdwarden/rbdwarden/supervision/process"
)

func newDaemonCommand(args []string) *cobra.Command {
	return &cobra.Command{
		Use:   "daemon [OPTION...]",
		Short: "Mirror images: the daemon, with the command line of rbd-mirror",
		Long:  daemonUsage,
		// Ceph's command line is not the one that pflag knows.
		DisableFlagParsing: true,
		RunE:               func(_ *cobra.Command, options []string) error { return runDaemon(args, options) },
	}
}

const daemonUsage = `Options are those of Ceph's rbd-mirror:
  -c, --conf FILE       read configuration from FILE
      --cluster NAME    set cluster name (default: ceph)
  -i, --id ID           set ID portion of my name
  -n, --name TYPE.ID    set name
  -m, --mon-host ADDR   connect to specified monitor
  -k, --keyring FILE    read the key from a keyring
  -K, --keyfile FILE    read the key from a file (-: standard input)
      --setuser USER    set uid to user or uid (and gid to user's gid)
      --setgroup GROUP  set gid to group or gid
      --log-file FILE   write the log to FILE
      --pid-file FILE   write and lock FILE
      --admin-socket PATH
      --debug-rbd-mirror N
                        log debug messages from 10 on, all from 20 on
  -f, --foreground      run in foreground, log to usual location
  -d                    run in foreground, log to stderr
  -v, --version         show version and quit
  -h, --help            show this and quit
Any other option of Ceph or of rbd-warden (see: rbd-warden options) can be given
as --option VALUE or --option=VALUE; dashes and underscores are the same. CEPH_ARGS,
CEPH_CONF and CEPH_KEYRING are read from the environment.`

// runDaemon is the daemon. args are the whole command line of the process, options
// those of them that are Ceph's.
func runDaemon(args, options []string) error {
	inv, err := config.ParseArgs(options, os.Getenv)
	if err != nil {
		return err
	}
	switch {
	case inv.Help:
		fmt.Printf("usage: %s [options...]\n%s\n", filepath.Base(args[0]), daemonUsage)
		return nil
	case inv.Version:
		fmt.Println(versionText())
		return nil
	}
	cfg, warnings, err := config.Resolve(inv, thisHost(strconv.Itoa(os.Getpid())))
	if err != nil {
		return err
	}
	if !cfg.Process.Foreground && !daemon.InBackground() {
		// What can be found wrong, is; the rest shows in the background.
		return daemon.Background(args)
	}
	if err := readKeyFromStdin(&cfg); err != nil {
		return err
	}
	d, err := newWarden(args[0], cfg, warnings)
	if err != nil {
		return err
	}
	return d.Run(context.Background())
}

// thisHost is what the configuration wants to know about this host.
func thisHost(pid string) config.Host {
	name, _ := os.Hostname()
	name, _, _ = strings.Cut(name, ".")
	return config.Host{Name: name, PID: pid, Home: os.Getenv("HOME"), Env: os.Getenv, ReadFile: os.ReadFile}
}

// readKeyFromStdin does what "--keyfile -" asks for.
func readKeyFromStdin(cfg *config.Config) error {
	if cfg.Overrides["keyfile"] != "-" {
		return nil
	}
	key, err := io.ReadAll(io.LimitReader(os.Stdin, 1024))
	if err != nil {
		return fmt.Errorf("read key from standard input: %w", err)
	}
	delete(cfg.Overrides, "keyfile")
	cfg.Overrides["key"] = strings.TrimSpace(string(key))
	return nil
}

// warden is the daemon process. It never calls librados: nothing that goes wrong in
// there can end it.
type warden struct {
	mu      sync.Mutex // guards cfg once Run has begun
	cfg     config.Config
	log     zerolog.Logger
	out     *logOutput
	pid     *daemon.PIDFile
	started time.Time
	workers []*process.Supervisor
	groups  *memory.Root // of the workers' memory; nil if there is none
	traces  *traces
	ledger  supervision.Ledger // of everything that has ended since the daemon started
	names   nameBook
	limits  *limiter
	stops   chan struct{} // closed when it was asked to stop
	asked   time.Time     // when; valid once stops is closed
}

// impatience is how long after a request to stop another one means "at once". A
// process group gets one signal more than once when its leader passes it on (timeout,
// service managers): that is no impatience.
const impatience = 2 * time.Second

// newWarden makes the process a daemon: name, user, log, pid file, and what it will
// supervise.
func newWarden(argv0 string, cfg config.Config, warnings []string) (d *warden, err error) {
	process.SetName(filepath.Base(argv0))
	options, err := cfg.LoadOwn()
	if err != nil {
		return nil, err
	}
	limit := workerMemory(options, memory.HostMemory())
	// Both before it takes root to do it.
	oomErr := process.SetOOMScore(process.DaemonOOMScore)
	groups, noGroups := openGroups(cfg.Process, limit)
	defer func() {
		if err != nil && groups != nil {
			groups.Close()
		}
	}()
	warning, err := daemon.Become(cfg.Process.SetUser, cfg.Process.SetGroup)
	if err != nil {
		return nil, err
	}
	if warning != "" {
		warnings = append(warnings, warning)
	}
	if dir := cfg.Process.RunDir; dir != "" {
		if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
			warnings = append(warnings, "unable to create run directory: "+err.Error())
		}
	}
	d = &warden{cfg: cfg, started: time.Now(), stops: make(chan struct{}), groups: groups, traces: newTraces()}
	var logErr error
	d.log, d.out, logErr = openLog(cfg.Process, os.Stderr)
	if logErr != nil {
		warnings = append(warnings, "cannot log to file: "+logErr.Error())
	}
	for _, w := range warnings {
		d.log.Warn().Msg(w)
	}
	if oomErr != nil {
		d.log.Debug().Err(oomErr).Msg("not protected from the out-of-memory killer")
	}
	if noGroups != "" {
		d.log.Info().Str("why", noGroups).Msg("workers get no memory cgroups; their resident memory is watched")
	}
	if d.pid, err = daemon.HoldPIDFile(cfg.Process.PIDFile); err != nil {
		return nil, err
	}
	if err := d.addWorkers(argv0, options.Warden, limit, noGroups); err != nil {
		return nil, errors.Join(err, d.pid.Release())
	}
	d.limits = newLimiter(d)
	return d, nil
}

func (d *warden) addWorkers(argv0 string, o config.Warden, limit int64, noGroups string) error {
	data, err := json.Marshal(d.cfg)
	if err != nil {
		return err
	}
	spec := process.Spec{
		Path: "/proc/self/exe", Config: data,
		Strategy:     strategyOf(o),
		StartTimeout: o.StartTimeout, StopTimeout: o.StopTimeout,
		HeartbeatInterval: o.HeartbeatInterval, HeartbeatTimeout: o.HeartbeatTimeout,
		MemoryLimit: limit, Groups: d.groups, NoGroups: noGroups,
		Env: nativeMemory(os.Getenv),
	}
	if daemon.InBackground() {
		// Somebody waits for the outcome, and will look at the exit code.
		spec.Patience = process.EndOnAny
	} else {
		spec.LogTo = os.Stderr
	}
	for i := range o.WorkerCount() {
		spec.Index, spec.Args = i, []string{argv0, "worker", strconv.Itoa(i)}
		spec.Traced = func(pid int, t *controlv1.Traces) { d.traces.Add(i, pid, t) }
		spec.Died = func(pid int, cause report.Cause) {
			d.traces.Died(i, pid, cause)
			d.ledger.Add(supervision.End{Level: report.LevelWorker, Name: workerName(i), Cause: cause})
		}
		spec.Ended = func(e supervision.End) { d.ledger.Add(e) }
		spec.Asked = d.answerAsk
		spec.Book = func() supervision.Book { return d.ledger.Book().Brief() }
		d.workers = append(d.workers, process.New(spec, d.log))
	}
	return nil
}

// strategyOf is how workers, and images in them, are restarted.
func strategyOf(o config.Warden) supervision.Strategy {
	return supervision.Strategy{
		Min: o.RestartMin, Max: o.RestartMax, Factor: 2, Intensity: int(o.RestartIntensity),
		Window: o.RestartWindow, ParkedRetry: o.ParkedRetry, Calm: time.Minute,
	}
}

// Run supervises until a signal asks to stop. The error is that of a first worker that
// could not do its work.
func (d *warden) Run(ctx context.Context) (err error) {
	defer func() { err = errors.Join(err, d.pid.Release()) }()
	if d.groups != nil {
		defer d.groups.Close()
	}
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	defer signal.Stop(signals)

	control, err := listenControl(d)
	if err != nil {
		// Images matter more than who wants to look at them.
		d.log.Warn().Err(err).Msg("no control socket")
	}
	defer control.Stop()
	adm, err := listenAdmin(d)
	if err != nil {
		d.log.Warn().Err(err).Msg("no admin socket")
	}
	defer adm.Close()

	d.log.Info().Str("version", version).RawJSON("configuration", []byte(d.config().String())).Msg("daemon started")
	d.notify("READY=1", "STATUS=starting")
	ended := make(chan error, len(d.workers))
	naming, named := context.WithCancel(ctx)
	defer named()
	go d.keepNames(naming)
	go d.limits.Run(naming)
	for _, w := range d.workers {
		go func() { ended <- w.Run(ctx) }()
	}
	ready := d.allReady()
	for left := len(d.workers); left > 0; {
		select {
		case s := <-signals:
			d.signalled(s)
		case <-ready:
			ready = nil
			d.notify("STATUS=mirroring")
			if err := daemon.Detach(); err != nil {
				d.log.Warn().Err(err).Msg("cannot detach from the terminal")
			}
		case e := <-ended:
			left--
			if e != nil {
				// One that cannot start is like the next one; do not leave half a
				// daemon behind.
				err = errors.Join(err, e)
				d.stop()
			}
		}
	}
	d.log.Info().Msg("daemon stopped")
	return err
}

// allReady is closed once every worker got ready.
func (d *warden) allReady() <-chan struct{} {
	all := make(chan struct{})
	go func() {
		for _, w := range d.workers {
			<-w.Ready()
		}
		close(all)
	}()
	return all
}

func (d *warden) signalled(s os.Signal) {
	d.log.Info().Str("signal", s.String()).Msg("signal")
	switch {
	case s == syscall.SIGHUP:
		if err := d.reopenLogs(); err != nil {
			d.log.Warn().Err(err).Msg("cannot open log file again")
		}
	case d.stopping() && time.Since(d.asked) < impatience:
	case d.stopping():
		for _, w := range d.workers {
			w.Hurry()
		}
	default:
		d.stop()
	}
}

// reopenLogs opens the log files of all processes again.
func (d *warden) reopenLogs() error {
	for _, w := range d.workers {
		w.ReopenLog()
	}
	return d.out.Reopen()
}

func (d *warden) stopping() bool {
	select {
	case <-d.stops:
		return true
	default:
		return false
	}
}

// stop asks all workers to stop. Only Run's goroutine calls it.
func (d *warden) stop() {
	if d.stopping() {
		return
	}
	d.asked = time.Now()
	close(d.stops)
	d.notify("STOPPING=1", "STATUS=stopping")
	for _, w := range d.workers {
		w.Stop()
	}
}

func (d *warden) notify(lines ...string) {
	if err := daemon.Notify(lines...); err != nil {
		d.log.Warn().Err(err).Msg("cannot notify the service manager")
	}
}
