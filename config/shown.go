package config

import (
	"slices"
	"strconv"
	"strings"
)

// Shown is an option as it is in effect.
type Shown struct {
	Name, Value, Default string
}

// ProcessOptions are the options that the daemon process itself acts on, as they are in
// effect: librados, in the workers, has been told other values of them, or none.
func (c Config) ProcessOptions() []Shown {
	p := c.Process
	mode := ""
	if p.AdminSocketMode != 0 {
		mode = "0" + strconv.FormatUint(uint64(p.AdminSocketMode), 8)
	}
	level := strconv.Itoa(p.LogLevel)
	values := []Shown{
		{Name: "admin_socket", Value: p.AdminSocket},
		{Name: "admin_socket_mode", Value: mode},
		{Name: "daemonize", Value: strconv.FormatBool(!p.Foreground)},
		{Name: "debug_rbd_mirror", Value: level + "/" + level},
		{Name: "err_to_stderr", Value: strconv.FormatBool(p.ErrToStderr)},
		{Name: "log_file", Value: p.LogFile},
		{Name: "log_stderr_prefix", Value: p.LogPrefix},
		{Name: "log_to_file", Value: strconv.FormatBool(p.LogFile != "")},
		{Name: "log_to_stderr", Value: strconv.FormatBool(p.LogToStderr)},
		{Name: "pid_file", Value: p.PIDFile},
		{Name: "run_dir", Value: p.RunDir},
		{Name: "setgroup", Value: p.SetGroup},
		{Name: "setuser", Value: p.SetUser},
	}
	for i, v := range values {
		values[i].Default = processDefaults[v.Name]
	}
	return values
}

// OwnOptions are the rbd_warden_* options as they are in effect.
func (c Config) OwnOptions() []Shown {
	shown := make([]Shown, 0, len(wardenTable))
	for _, o := range wardenTable {
		v, ok := c.Own[o.Name]
		if !ok {
			v = o.Default
		}
		if o.Name == "rbd_warden_control_socket" {
			v = c.Process.ControlSocket
		}
		shown = append(shown, Shown{o.Name, v, o.Default})
	}
	return shown
}

// Secret tells whether an option's value must not be shown.
func Secret(name string) bool { return secrets[name] }

// Find is the option of that name, or of that other name, if rbd-warden uses it.
func Find(name string) (Option, bool) {
	for _, o := range Table() {
		if o.Name == name || slices.Contains(o.Aliases, name) {
			return o, true
		}
	}
	return Option{}, false
}

// Check tells whether the option can have a value: a ValueError if it cannot.
func (o *Option) Check(value string) error {
	var into Options
	return o.set(&into, value)
}

// ParseLogLevel understands debug_rbd_mirror: the level of the log, and perhaps that of
// lines kept in memory, which there are none of.
func ParseLogLevel(value string) (int, error) {
	level, _, _ := strings.Cut(value, "/")
	n, err := strconv.Atoi(strings.TrimSpace(level))
	if err != nil || n < 0 || n > 99 {
		return 0, &ValueError{Option: "debug_rbd_mirror", Value: value, Text: "it must be from 0 to 99"}
	}
	return n, nil
}
