package main

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/rbdwarden/rbdwarden/lab"
)

// demoPool is the pool that the demo mirrors.
const demoPool = "vms"

// demoImages are the images in it.
var demoImages = []string{"web", "database"}

// demo is one run of `rbd-warden demo`.
type demo struct {
	sizeMiB  int
	patience time.Duration // the longest that one step may take
	keep     bool

	screen *screen
	pair   *lab.Pair
	daemon *exec.Cmd
	exited chan struct{} // closed when the daemon has ended, exit is set then
	exit   error
	socket string
	began  time.Time
}

// newDemoCommand makes `rbd-warden demo`, which mirrors images between two throwaway clusters before one's eyes.
func newDemoCommand() *cobra.Command {
	d := demo{patience: 2 * time.Minute}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Mirror images between two throwaway Ceph clusters, and prove it",
		Long: `Starts two throwaway Ceph clusters on this machine, writes images on one of them, mirrors them to the other while
you watch, kills the process that does it, and goes on. Proves that the contents are equal, promotes the second site,
and removes everything. Needs Ceph's packages (make deps), about 2 GB of memory and a minute or two.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return d.Run(ctx, cmd.OutOrStdout())
		},
	}
	cmd.Flags().IntVar(&d.sizeMiB, "size", 256, "size of each image in MiB")
	cmd.Flags().BoolVar(&d.keep, "keep", false, "leave the clusters running at the end (the daemon ends)")
	return cmd
}

// Run runs the demo. Whatever it started has ended when it answers, unless the clusters are to be kept.
func (d *demo) Run(ctx context.Context, out io.Writer) (err error) {
	if d.sizeMiB < 16 || d.sizeMiB > 1024 {
		return fmt.Errorf("size %d MiB: want 16 to 1024", d.sizeMiB)
	}
	d.screen, d.began = newScreen(out), time.Now()
	defer func() {
		d.screen.settle()
		err = errors.Join(err, d.cleanUp(err))
	}()
	for _, act := range []func(context.Context) error{
		d.startClusters, d.writeImages, d.startDaemon, d.watchSync, d.watchReplay, d.surviveKill, d.proveEqual, d.failOver,
	} {
		if err := act(ctx); err != nil {
			return err
		}
	}
	return nil
}

// cleanUp ends all that the demo started.
func (d *demo) cleanUp(failure error) error {
	if failure != nil && d.daemon != nil {
		d.screen.note("the daemon's last words:\n%s", d.lastWords())
	}
	if d.pair == nil {
		return nil
	}
	if d.daemon != nil {
		d.daemon.Process.Signal(syscall.SIGTERM)
		select {
		case <-d.exited:
		case <-time.After(10 * time.Second):
			d.daemon.Process.Kill()
		}
	}
	if d.keep && failure == nil {
		d.screen.title("The clusters are left running")
		d.screen.note("rbd-warden lab down %s", filepath.Dir(d.pair.Primary.Dir()))
		return nil
	}
	d.screen.title("Cleaning up")
	if err := d.pair.Stop(); err != nil {
		return err
	}
	if failure == nil {
		d.screen.note("Nothing is left. The whole took %v.", time.Since(d.began).Round(time.Second))
	}
	return nil
}

func (d *demo) startClusters(ctx context.Context) error {
	d.screen.title("Starting two Ceph clusters, and making them mirror a pool")
	options := lab.Options{}
	if !d.keep { // a guard would stop them with this process
		options.Guard = guardArgs
	}
	var err error
	if d.pair, err = lab.StartPair(ctx, options); err != nil {
		return err
	}
	if err := d.pair.MirrorPool(ctx, demoPool, lab.PoolMode); err != nil {
		return err
	}
	for _, c := range []*lab.Cluster{d.pair.Primary, d.pair.Secondary} {
		d.screen.note("%s  ceph -c %s", c.Name(), c.Conf())
	}
	return nil
}

func (d *demo) writeImages(ctx context.Context) error {
	d.screen.title("Creating images on %s and filling them", d.pair.Primary.Name())
	for _, image := range demoImages {
		if _, err := d.pair.Primary.CLI(ctx, "rbd", "create", "--size", fmt.Sprintf("%dM", d.sizeMiB),
			"--image-feature", "exclusive-lock,object-map,fast-diff,journaling", demoPool+"/"+image); err != nil {
			return err
		}
		if err := d.bench(ctx, image, "seq", "4M", d.sizeMiB/2); err != nil {
			return err
		}
		d.screen.note("%s/%s: %d MiB, half of it written", demoPool, image, d.sizeMiB)
	}
	return nil
}

// bench writes to an image on the primary.
func (d *demo) bench(ctx context.Context, image, pattern, ioSize string, totalMiB int) error {
	_, err := d.pair.Primary.CLI(ctx, "rbd", "bench", "--io-type", "write", "--io-pattern", pattern, "--io-size", ioSize,
		"--io-total", fmt.Sprintf("%dM", totalMiB), demoPool+"/"+image)
	return err
}

func (d *demo) startDaemon(_ context.Context) error {
	c := d.pair.Secondary
	d.socket = filepath.Join(c.RunDir(), "demo.sock")
	args := []string{"daemon", "-f", "-c", c.Conf(), "-n", lab.DaemonUser, "--log-file", d.logFile(),
		"--rbd-warden-control-socket", d.socket}
	d.screen.title("Starting the daemon beside %s", c.Name())
	d.screen.note("rbd-warden daemon -c %s -n %s", c.Conf(), lab.DaemonUser)
	d.daemon = exec.Command("/proc/self/exe", args...)
	d.daemon.Args[0] = os.Args[0]
	d.daemon.Env = c.Environ()
	d.daemon.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // a Ctrl-C is for the demo, which then ends the daemon
	d.exited = make(chan struct{})
	output, err := os.Create(d.logFile() + ".out")
	if err != nil {
		return err
	}
	defer output.Close()
	d.daemon.Stdout, d.daemon.Stderr = output, output
	if err := d.daemon.Start(); err != nil {
		d.daemon = nil
		return err
	}
	go func() {
		d.exit = d.daemon.Wait()
		close(d.exited)
	}()
	return nil
}

// logFile is where the daemon logs; what it prints is beside it, with ".out" behind the name.
func (d *demo) logFile() string { return filepath.Join(d.pair.Secondary.LogDir(), "demo.log") }

// lastWords is the end of what the daemon logged and printed.
func (d *demo) lastWords() string {
	var words strings.Builder
	for _, name := range []string{d.logFile(), d.logFile() + ".out"} {
		text, _ := os.ReadFile(name)
		words.Write(text[max(0, len(text)-2048):])
	}
	return words.String()
}

func (d *demo) watchSync(ctx context.Context) error {
	d.screen.title("The first copy")
	return d.watch(ctx, nil)
}

func (d *demo) watchReplay(ctx context.Context) error {
	d.screen.title("Writing at random, 4 KiB each, while the daemon follows")
	return d.during(ctx, func(ctx context.Context) error {
		for _, image := range demoImages {
			if err := d.bench(ctx, image, "rand", "4K", 24); err != nil {
				return err
			}
		}
		return nil
	})
}

// surviveKill kills the worker process as the kernel does when memory runs out, under load.
func (d *demo) surviveKill(ctx context.Context) error {
	d.screen.title("Killing the worker process, as the kernel does when memory runs out")
	before, err := askReport(ctx, d.socket, false)
	if err != nil {
		return err
	}
	if len(before.Workers) == 0 || before.Workers[0].PID <= 0 {
		return errors.New("the daemon has no worker process to kill")
	}
	return d.during(ctx, func(ctx context.Context) error {
		if err := d.bench(ctx, demoImages[0], "rand", "4K", 4); err != nil {
			return err
		}
		pid := before.Workers[0].PID
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			return fmt.Errorf("kill worker %d: %w", pid, err)
		}
		d.screen.note("kill -9 %d", pid)
		return d.bench(ctx, demoImages[0], "rand", "4K", 4)
	})
}

// proveEqual reads both sites with rbd export and compares.
func (d *demo) proveEqual(ctx context.Context) error {
	d.screen.title("Comparing what rbd export reads on both sites")
	for _, image := range demoImages {
		if err := d.untilMirrored(ctx, image); err != nil {
			return err
		}
		var sums [2]string
		for i, c := range []*lab.Cluster{d.pair.Primary, d.pair.Secondary} {
			var err error
			if sums[i], err = exportSum(ctx, c, image); err != nil {
				return err
			}
			d.screen.note("%s  md5 %s  %s/%s", c.Name(), sums[i], demoPool, image)
		}
		if sums[0] != sums[1] {
			return fmt.Errorf("the contents of %s differ", image)
		}
	}
	d.screen.note("equal")
	return nil
}

// exportSum is the MD5 of an image's contents.
func exportSum(ctx context.Context, c *lab.Cluster, image string) (string, error) {
	sum := md5.New()
	cmd := c.Command(ctx, "rbd", "export", "--no-progress", demoPool+"/"+image, "-")
	cmd.Stdout = sum
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("rbd export %s on %s: %w", image, c.Name(), err)
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// failOver makes the secondary the primary, in order, and writes there.
func (d *demo) failOver(ctx context.Context) error {
	d.screen.title("Moving the images: demote on %s, promote on %s", d.pair.Primary.Name(), d.pair.Secondary.Name())
	for _, image := range demoImages {
		spec := demoPool + "/" + image
		if _, err := d.pair.Primary.CLI(ctx, "rbd", "mirror", "image", "demote", spec); err != nil {
			return err
		}
		if err := d.promote(ctx, spec); err != nil {
			return err
		}
		if _, err := d.pair.Secondary.CLI(ctx, "rbd", "bench", "--io-type", "write", "--io-size", "4K", "--io-total", "1M", spec); err != nil {
			return err
		}
		d.screen.note("%s is primary on %s, and written there", spec, d.pair.Secondary.Name())
	}
	return nil
}

// promote promotes an image on the secondary as soon as it has heard of the demotion.
func (d *demo) promote(ctx context.Context, spec string) error {
	ctx, cancel := context.WithTimeout(ctx, d.patience)
	defer cancel()
	for {
		_, err := d.pair.Secondary.CLI(ctx, "rbd", "mirror", "image", "promote", spec)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(500 * time.Millisecond):
		}
	}
}
