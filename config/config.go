package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// Config is what a daemon hands to its workers: whom to connect to and as whom, and
// what was settled before any connection existed. It may hold a key: never log it.
type Config struct {
	Cluster  string `json:"cluster"`   // name of the local cluster
	Entity   Entity `json:"entity"`    // whom to authenticate as
	ConfFile string `json:"conf_file"` // path of ceph.conf, "" if there is none
	// Overrides are for librados to set after it has read ConfFile.
	Overrides Settings `json:"overrides"`
	// Defaults are for librados to use where neither ConfFile nor the monitors
	// nor Overrides say anything (rados_conf_parse_argv takes --default-NAME).
	Defaults    Settings `json:"defaults"`
	NoMonConfig bool     `json:"no_mon_config"`
	// Own are the rbd_warden_* options that somebody set, expanded.
	Own     Settings `json:"own"`
	Process Process  `json:"process"`
	// Halts are what an operator has stopped while the daemon runs.
	Halts Halts `json:"halts,omitempty"`
	// Drains are the workers, by index, that an operator has told to give their images away
	// while the daemon runs, with the words of who did.
	Drains map[int]string `json:"drains,omitempty"`
	// Limits are the limits on bytes a second that an operator has set while the daemon runs.
	Limits LimitWishes `json:"limits,omitempty"`
}

// Process is what the processes of a daemon need besides their work.
type Process struct {
	Foreground      bool   `json:"foreground"`
	PIDFile         string `json:"pid_file"`   // "": none
	RunDir          string `json:"run_dir"`    // directory of sockets
	LogFile         string `json:"log_file"`   // "": none
	LogToStderr     bool   `json:"log_stderr"` // all lines
	ErrToStderr     bool   `json:"err_stderr"` // errors too
	LogPrefix       string `json:"log_prefix"` // of lines on stderr
	LogLevel        int    `json:"log_level"`  // as debug_rbd_mirror: 0 to 99
	AdminSocket     string `json:"admin_socket"`
	AdminSocketMode uint32 `json:"admin_socket_mode"` // 0: the umask decides
	ControlSocket   string `json:"control_socket"`    // "": none
	SetUser         string `json:"set_user"`          // "": stay
	SetGroup        string `json:"set_group"`         // "": stay
}

// secrets are the options whose values must not be seen.
var secrets = map[string]bool{"key": true}

// String describes a configuration for the log, without secrets.
func (c Config) String() string {
	c.Overrides = hide(c.Overrides)
	c.Defaults = hide(c.Defaults)
	b, err := json.Marshal(struct {
		Cluster   string   `json:"cluster"`
		Entity    string   `json:"entity"`
		ConfFile  string   `json:"conf_file"`
		Overrides Settings `json:"overrides"`
		Defaults  Settings `json:"defaults"`
		Own       Settings `json:"own"`
		Process   Process  `json:"process"`
	}{c.Cluster, c.Entity.String(), c.ConfFile, c.Overrides, c.Defaults, c.Own, c.Process})
	if err != nil {
		return err.Error()
	}
	return string(b)
}

func hide(s Settings) Settings {
	out := Settings{}
	for k, v := range s {
		if secrets[k] {
			v = "(hidden)"
		}
		out[k] = v
	}
	return out
}

// Getter gives Load our own options from the configuration and all others from a
// live connection.
func (c Config) Getter(live func(name string) (string, error)) func(name string) (string, error) {
	return func(name string) (string, error) {
		if !strings.HasPrefix(name, "rbd_warden_") {
			return live(name)
		}
		if v, ok := c.Own[name]; ok {
			return v, nil
		}
		return "", syscall.ENOENT
	}
}

// LoadOwn gives all options without a connection: our own as configured, Ceph's at
// their defaults. The daemon process uses it.
func (c Config) LoadOwn() (Options, error) {
	return Load(c.Getter(func(string) (string, error) { return "", syscall.ENOENT }))
}

// Host is what Resolve wants to know about where it runs.
type Host struct {
	Name     string                            // of the host, short
	PID      string                            // of the daemon; "*" to get patterns that match any
	Home     string                            // home directory
	Env      func(name string) string          // reads the environment
	ReadFile func(path string) ([]byte, error) // reads a file; its error wraps syscall.ENOENT if there is none
}

// ErrNoFile says that there is no ceph.conf where one was asked for.
var ErrNoFile = errors.New("unable to open config file")

// defaultSearch is where Ceph looks for ceph.conf.
const defaultSearch = "/etc/ceph/$cluster.conf, $home/.ceph/$cluster.conf, $cluster.conf"

// Resolve finds and reads ceph.conf and settles what the daemon process needs.
// warnings are for the log.
func Resolve(inv Invocation, host Host) (c Config, warnings []string, err error) {
	c = Config{
		Cluster: inv.Cluster, Entity: inv.Entity, Own: Settings{},
		Overrides: inv.Overrides, Defaults: inv.Defaults, NoMonConfig: inv.NoMonConfig,
	}
	for _, a := range inv.Ignored {
		warnings = append(warnings, fmt.Sprintf("argument %q is no option and is ignored", a))
	}
	file, w, err := find(&c, inv, host)
	if err != nil {
		return Config{}, nil, err
	}
	warnings = append(warnings, w...)

	r := resolver{config: &c, file: file, host: host}
	r.process(inv)
	for _, o := range wardenTable {
		if v, ok := r.set(o.Name); ok {
			c.Own[o.Name] = r.expand(o.Name, v)
			delete(c.Overrides, o.Name)
			delete(c.Defaults, o.Name)
		}
	}
	if _, err := c.LoadOwn(); err != nil {
		r.errs = append(r.errs, err)
	}
	return c, warnings, errors.Join(r.errs...)
}

// find finds ceph.conf, and the cluster's name if only that file tells it.
func find(c *Config, inv Invocation, host Host) (*File, []string, error) {
	search := inv.ConfFiles
	if search == "" {
		search = host.Env("CEPH_CONF")
	}
	asked := search != ""
	if !asked {
		search = defaultSearch
		if c.Cluster == "" {
			c.Cluster = "ceph"
		}
	}
	if inv.NoConfigFile && !asked {
		return nil, nil, nil
	}
	scope := Scope{Cluster: c.Cluster, Entity: c.Entity, Host: host.Name, PID: host.PID, CCTID: cctID, Home: host.Home}
	for _, path := range strings.FieldsFunc(search, func(r rune) bool { return strings.ContainsRune(";,= \t", r) }) {
		path, err := scope.Expand(path)
		if err != nil {
			return nil, nil, err
		}
		data, err := host.ReadFile(path)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		if err != nil {
			return nil, nil, fmt.Errorf("read config file: %w", err)
		}
		file, err := ParseFile(path, data)
		if err != nil {
			return nil, nil, fmt.Errorf("parse config file: %w", err)
		}
		c.ConfFile = path
		if c.Cluster == "" {
			c.Cluster = "ceph"
			if base, ok := strings.CutSuffix(filepath.Base(path), ".conf"); ok && base != "" {
				c.Cluster = base
			}
		}
		return file, nil, nil
	}
	if asked {
		return nil, nil, fmt.Errorf("%w from search list %s", ErrNoFile, search)
	}
	return nil, []string{"did not load config file, using default settings"}, nil
}

// cctID stands for $cctid, which tells contexts of one process apart. There is one.
const cctID = 1

// resolver looks up single options for Resolve and gathers errors.
type resolver struct {
	config *Config
	file   *File
	host   Host
	errs   []error
}

// processDefaults are the defaults of the options that the daemon process reads.
var processDefaults = Settings{
	"run_dir":           "/var/run/ceph",
	"log_file":          "/var/log/ceph/$cluster-$name.log",
	"admin_socket":      "$run_dir/$cluster-$name.$pid.$cctid.asok",
	"admin_socket_mode": "",
	"pid_file":          "",
	"setuser":           "",
	"setgroup":          "",
	"log_to_file":       "true",
	"log_to_stderr":     "false",
	"err_to_stderr":     "true",
	"log_stderr_prefix": "",
	"debug_rbd_mirror":  "0/5",
	"daemonize":         "true",
	"host":              "",
}

// set finds what somebody set an option to.
func (r *resolver) set(name string) (string, bool) {
	if v, ok := r.config.Overrides[name]; ok {
		return v, true
	}
	if v, ok := r.file.Lookup(name, SectionsOf(r.config.Entity)...); ok {
		return v, true
	}
	v, ok := r.config.Defaults[name]
	return v, ok
}

// raw finds an option's value, unexpanded.
func (r *resolver) raw(name string) (string, bool) {
	if v, ok := r.set(name); ok {
		return v, true
	}
	v, ok := processDefaults[name]
	return v, ok
}

func (r *resolver) expand(name, value string) string {
	c := r.config
	out, err := Scope{
		Cluster: c.Cluster, Entity: c.Entity, Host: r.host.Name, PID: r.host.PID,
		CCTID: cctID, Home: r.host.Home, Option: r.raw,
	}.Expand(value)
	if err != nil {
		r.errs = append(r.errs, fmt.Errorf("option %s: %w", name, err))
	}
	return out
}

func (r *resolver) text(name string) string {
	v, _ := r.raw(name)
	return r.expand(name, v)
}

func (r *resolver) truth(name string) bool {
	v := r.text(name)
	b, err := parseBool(strings.TrimSpace(v))
	if err != nil {
		r.errs = append(r.errs, &ValueError{Option: name, Value: v, Text: err.Error()})
	}
	return b
}

func (r *resolver) process(inv Invocation) {
	p := &r.config.Process
	p.Foreground = inv.Foreground || !r.truth("daemonize")
	p.RunDir = r.text("run_dir")
	p.PIDFile = r.text("pid_file")
	p.LogToStderr = r.truth("log_to_stderr")
	p.ErrToStderr = r.truth("err_to_stderr")
	p.LogPrefix = r.text("log_stderr_prefix")
	if r.truth("log_to_file") && !inv.Stderr {
		p.LogFile = r.text("log_file")
	}
	p.SetUser, p.SetGroup = r.text("setuser"), r.text("setgroup")
	p.AdminSocket = r.text("admin_socket")
	if v := r.text("admin_socket_mode"); v != "" {
		mode, err := strconv.ParseUint(v, 8, 32)
		if err != nil || mode > 0o777 {
			r.errs = append(r.errs, &ValueError{Option: "admin_socket_mode", Value: v, Text: "it is no octal mode"})
		}
		p.AdminSocketMode = uint32(mode)
	}
	var err error
	if p.LogLevel, err = ParseLogLevel(r.text("debug_rbd_mirror")); err != nil {
		r.errs = append(r.errs, err)
	}
	socket, ok := r.set("rbd_warden_control_socket")
	if !ok {
		socket = defaultOf("rbd_warden_control_socket")
	}
	p.ControlSocket = r.expand("rbd_warden_control_socket", socket)
}

func defaultOf(name string) string {
	for _, o := range wardenTable {
		if o.Name == name {
			return o.Default
		}
	}
	panic("no option " + name)
}

// ofProcess are options that concern the process and not a connection: librados must
// not act on them, least of all write the daemon's log or remove its pid file.
var ofProcess = map[string]bool{
	"admin_socket": true, "admin_socket_mode": true, "daemonize": true, "pid_file": true,
	"run_dir": true, "setuser": true, "setgroup": true, "setuser_match_path": true,
	"chdir": true, "fatal_signal_handlers": true, "debug_rbd_mirror": true, "thp": true,
}

// Librados are the overrides for librados to set: all but those that concern the
// process.
func (c Config) Librados() Settings {
	out := Settings{}
	for name, value := range c.Overrides {
		if ofProcess[name] || strings.HasPrefix(name, "log_") || strings.HasPrefix(name, "err_to_") ||
			strings.HasPrefix(name, "mon_cluster_log_") || strings.HasPrefix(name, "clog_to_") {
			continue
		}
		out[name] = value
	}
	return out
}
