package config

import (
	"fmt"
	"maps"
	"strings"
)

// Settings are options by their canonical name (see Canonical) with their values as
// they were written.
type Settings map[string]string

// Canonical gives the one form of an option's name: dashes and runs of white space
// become underscores.
func Canonical(name string) string {
	name = strings.Join(strings.Fields(name), "_")
	return strings.ReplaceAll(name, "-", "_")
}

// Invocation is a command line of rbd-mirror, taken apart.
type Invocation struct {
	Cluster   string // --cluster, "" if not given
	ConfFiles string // --conf: a list of paths as Ceph takes it, "" if not given
	Entity    Entity // --name, --id

	// Overrides are options from CEPH_KEYRING, CEPH_ARGS and the command line, the
	// later over the earlier. They win over ceph.conf and the monitors.
	Overrides Settings
	// Defaults are options given as --default-OPTION. Everything wins over them.
	Defaults Settings

	Foreground   bool // -f or -d
	Stderr       bool // -d: the log goes to stderr, and nowhere else
	NoConfigFile bool // --no-config-file
	NoMonConfig  bool // --no-mon-config
	Version      bool // -v: tell the version and do nothing else
	Help         bool // -h

	// Ignored are words that are no option. Ceph ignores them; so do we, but we tell.
	Ignored []string
}

// ParseArgs reads a command line without the program's name, with the options of
// CEPH_ARGS put before it and CEPH_KEYRING before those. env reads the environment.
// Options whose names nobody here knows are kept: librados decides about them.
// An error says which argument is wrong and is meant for the person who typed it.
func ParseArgs(args []string, env func(string) string) (Invocation, error) {
	inv := Invocation{Entity: DefaultEntity, Overrides: Settings{}, Defaults: Settings{}}
	if k := env("CEPH_KEYRING"); k != "" {
		inv.Overrides["keyring"] = k
	}
	for _, source := range []struct {
		name string
		args []string
	}{{"CEPH_ARGS: ", strings.Fields(env("CEPH_ARGS"))}, {"", args}} {
		if err := inv.parse(source.args); err != nil {
			return Invocation{}, fmt.Errorf("%s%w", source.name, err)
		}
	}
	return inv, nil
}

func (inv *Invocation) parse(args []string) error {
	for len(args) > 0 {
		arg := args[0]
		if arg == "--" {
			inv.Ignored = append(inv.Ignored, args[1:]...)
			return nil
		}
		rest, err := inv.take(arg, args[1:])
		if err != nil {
			return err
		}
		args = rest
	}
	return nil
}

// take handles one argument and returns what is left of those after it.
func (inv *Invocation) take(arg string, rest []string) ([]string, error) {
	name, value, hasValue := strings.Cut(arg, "=")
	long := strings.HasPrefix(name, "--")
	if long {
		name = Canonical(name[2:])
	}
	if key, ok := shortOptions[name]; ok {
		name = key
	} else if !long && !shortFlags[name] {
		inv.Ignored = append(inv.Ignored, arg)
		return rest, nil
	}
	if inv.flag(name) {
		if hasValue {
			return nil, fmt.Errorf("%s: takes no value", arg)
		}
		return rest, nil
	}

	// From here on the option has a value, in this argument or in the next one.
	own, isDefault := strings.CutPrefix(name, "default_")
	if own == "" {
		return nil, fmt.Errorf("%s: names no option", arg)
	}
	into := inv.Overrides
	if isDefault {
		into = inv.Defaults
	}
	switch {
	case hasValue:
	case switches[own]:
		// A switch takes the next argument only if that is a truth value.
		value = "true"
		if len(rest) > 0 && isTruth(rest[0]) {
			value, rest = rest[0], rest[1:]
		}
	case strings.HasPrefix(own, "no_") && switches[own[3:]]:
		own, value = own[3:], "false"
	case len(rest) > 0 && !strings.HasPrefix(rest[0], "--"):
		value, rest = rest[0], rest[1:]
	case valued[own]:
		return nil, fmt.Errorf("%s: requires an argument", arg)
	default:
		// Of an option that only librados knows, we cannot tell whether it is a
		// switch. If it is none, librados will refuse this value.
		value = "true"
	}
	if identities[own] && !isDefault {
		return rest, inv.identify(own, value)
	}
	into[own] = value
	return rest, nil
}

// flag handles arguments without a value.
func (inv *Invocation) flag(name string) bool {
	switch name {
	case "-f", "foreground":
		inv.Foreground = true
		inv.Overrides["daemonize"] = "false"
	case "-d":
		inv.Foreground, inv.Stderr = true, true
		maps.Copy(inv.Overrides, Settings{
			"daemonize": "false", "log_file": "", "log_to_stderr": "true",
			"err_to_stderr": "true", "log_to_syslog": "false",
		})
	case "-v", "version":
		inv.Version = true
	case "-h", "help":
		inv.Help = true
	case "no_config_file":
		inv.NoConfigFile = true
	case "no_mon_config":
		inv.NoMonConfig = true
	case "mon_config":
		inv.NoMonConfig = false
	case "log_early":
		// The log is open before anything can fail, so there is nothing to do.
	default:
		return false
	}
	return true
}

// identify handles the options that say which cluster and who we are.
func (inv *Invocation) identify(name, value string) error {
	if value == "" {
		return fmt.Errorf("--%s: must not be empty", name)
	}
	switch name {
	case "cluster":
		if strings.ContainsAny(value, "/\x00") {
			return fmt.Errorf("--cluster: %q is no name of a cluster", value)
		}
		inv.Cluster = value
	case "conf":
		inv.ConfFiles = value
	case "id":
		inv.Entity.ID = value
	case "name":
		e, err := ParseEntity(value)
		if err != nil {
			return fmt.Errorf("--name: %w", err)
		}
		inv.Entity = e
	}
	return nil
}

// shortOptions are the options with a second name and a value.
var shortOptions = map[string]string{
	"-c": "conf", "-i": "id", "-n": "name", "-m": "mon_host", "-M": "monmap",
	"-k": "keyring", "-K": "keyfile", "-r": "client_mountpoint",
	"bind": "public_addr", "user": "id",
}

// shortFlags are the options of one letter without a value.
var shortFlags = map[string]bool{"-f": true, "-d": true, "-v": true, "-h": true}

// identities are the options that say which cluster and who we are.
var identities = map[string]bool{"cluster": true, "conf": true, "id": true, "name": true}

// valued are options that cannot do without a value. Those of our own table that are
// no switches are added to them.
var valued = map[string]bool{
	"cluster": true, "conf": true, "id": true, "name": true, "mon_host": true,
	"monmap": true, "keyring": true, "keyfile": true, "key": true, "public_addr": true,
	"client_mountpoint": true, "setuser": true, "setgroup": true, "log_file": true,
	"pid_file": true, "admin_socket": true, "admin_socket_mode": true, "run_dir": true,
	"log_stderr_prefix": true,
}

// switches are Ceph's options of type bool that people give to daemons, for they
// may stand without a value. The options of our own table are added to them.
var switches = map[string]bool{
	"daemonize": true, "log_to_stderr": true, "err_to_stderr": true,
	"log_to_file": true, "log_to_syslog": true, "err_to_syslog": true,
	"log_to_graylog": true, "err_to_graylog": true, "log_to_journald": true,
	"err_to_journald": true, "log_flush_on_exit": true, "log_coarse_timestamps": true,
	"clog_to_monitors": true, "clog_to_syslog": true, "mon_cluster_log_to_stderr": true,
	"mon_cluster_log_to_file": true, "mon_cluster_log_to_syslog": true,
	"fatal_signal_handlers": true, "ms_bind_ipv4": true, "ms_bind_ipv6": true,
	"auth_debug": true, "rbd_cache": true, "thp": true,
}

func init() {
	for _, o := range Table() {
		if o.Type == Bool {
			switches[o.Name] = true
		} else {
			valued[o.Name] = true
		}
	}
}

func isTruth(s string) bool {
	switch s {
	case "true", "false", "1", "0":
		return true
	}
	return false
}
