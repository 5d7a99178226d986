package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Type is the type of an option.
type Type uint8

// The types of options.
const (
	String   Type = iota + 1
	Bool          // true, false, yes, no, 1, 0
	Uint          // a number that is not negative; k, M, G ... are powers of 1000
	Size          // bytes; K, M, G ... are powers of 1024
	Float         // a number
	Duration      // seconds, or a number with a unit
)

func (t Type) String() string {
	return [...]string{"?", "string", "bool", "uint", "size", "float", "duration"}[t]
}

// MarshalText makes a type readable in JSON.
func (t Type) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// Option describes one option.
type Option struct {
	Name string `json:"name"`
	// Aliases are its names in other releases of Ceph, tried after Name.
	Aliases []string `json:"aliases,omitempty"`
	Type    Type     `json:"type"`
	Default string   `json:"default"`
	// Min and Max bound a number (in seconds for a duration). Both 0: no bounds
	// but that of the type.
	Min     float64  `json:"min"`
	Max     float64  `json:"max"`
	Allowed []string `json:"allowed,omitempty"` // the only values of a string; nil: any
	About   string   `json:"about"`             // one line for people

	field func(*Options) any // where the value goes: a pointer
}

// Own tells whether the option is rbd-warden's, unknown to Ceph.
func (o *Option) Own() bool { return strings.HasPrefix(o.Name, "rbd_warden_") }

// ValueError says that an option cannot have a value.
type ValueError struct {
	Option string
	Value  string
	Text   string
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("option %s cannot be %q: %s", e.Option, e.Value, e.Text)
}

// set checks a value and puts it into its field.
func (o *Option) set(into *Options, value string) error {
	bad := func(format string, args ...any) error {
		return &ValueError{Option: o.Name, Value: value, Text: fmt.Sprintf(format, args...)}
	}
	inRange := func(v float64) error {
		low, high := o.Min, o.Max
		if high == 0 {
			high = math.Inf(1)
		}
		switch {
		case v >= low && v <= high:
			return nil
		case math.IsInf(high, 1):
			return bad("it must be at least %v", low)
		}
		return bad("it must be from %v to %v", low, high)
	}
	v := strings.TrimSpace(value)
	var err error
	switch field := o.field(into).(type) {
	case *string:
		if o.Allowed != nil && !slices.Contains(o.Allowed, v) {
			return bad("it must be one of %s", strings.Join(o.Allowed, ", "))
		}
		*field = v
	case *bool:
		if *field, err = parseBool(v); err != nil {
			return bad("%v", err)
		}
	case *uint64:
		unit := 1000.0
		if o.Type == Size {
			unit = 1024
		}
		n, err := parseNumber(v, unit)
		if err != nil {
			return bad("%v", err)
		}
		if err := inRange(float64(n)); err != nil {
			return err
		}
		*field = n
	case *float64:
		n, err := strconv.ParseFloat(v, 64)
		if err != nil || math.IsNaN(n) || math.IsInf(n, 0) {
			return bad("it is no number")
		}
		if err := inRange(n); err != nil {
			return err
		}
		*field = n
	case *time.Duration:
		d, err := parseDuration(v)
		if err != nil {
			return bad("%v", err)
		}
		if err := inRange(d.Seconds()); err != nil {
			return err
		}
		*field = d
	default:
		panic(fmt.Sprintf("option %s has a field of type %T", o.Name, field))
	}
	return nil
}

func parseBool(s string) (bool, error) {
	switch strings.ToLower(s) {
	case "true", "yes", "1", "on":
		return true, nil
	case "false", "no", "0", "off":
		return false, nil
	}
	return false, fmt.Errorf("it is neither true nor false")
}

// parseNumber reads a whole number with an optional suffix (K, M, G, T, P, E, each
// unit times the one before; Ki, Mi ... always by 1024; B for nothing).
func parseNumber(s string, unit float64) (uint64, error) {
	end := len(s)
	for end > 0 && (s[end-1] < '0' || s[end-1] > '9') {
		end--
	}
	n, err := strconv.ParseUint(strings.TrimSpace(s[:end]), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("it is no whole number that is not negative")
	}
	suffix := strings.TrimSpace(s[end:])
	if suffix == "" || suffix == "B" {
		return n, nil
	}
	if strings.HasSuffix(suffix, "i") {
		unit = 1024
	}
	power := strings.Index("KMGTPE", strings.ToUpper(strings.TrimSuffix(suffix, "i")))
	if power < 0 || len(strings.TrimSuffix(suffix, "i")) != 1 {
		return 0, fmt.Errorf("%q is no unit", suffix)
	}
	for range power + 1 {
		if n > math.MaxUint64/uint64(unit) {
			return 0, fmt.Errorf("it is too large")
		}
		n *= uint64(unit)
	}
	return n, nil
}

// parseDuration reads seconds, with a fraction or with a unit as in "30s", "5 min".
func parseDuration(s string) (time.Duration, error) {
	number := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyz ")
	scale := time.Second
	switch strings.TrimSpace(s[len(number):]) {
	case "", "s", "sec", "secs", "second", "seconds":
	case "ms", "msec":
		scale = time.Millisecond
	case "m", "min", "mins", "minute", "minutes":
		scale = time.Minute
	case "h", "hr", "hrs", "hour", "hours":
		scale = time.Hour
	case "d", "day", "days":
		scale = 24 * time.Hour
	default:
		return 0, fmt.Errorf("it is no number of seconds")
	}
	n, err := strconv.ParseFloat(number, 64)
	if err != nil || math.IsNaN(n) {
		return 0, fmt.Errorf("it is no number of seconds")
	}
	if n < 0 {
		return 0, fmt.Errorf("it must not be negative")
	}
	d := n * float64(scale)
	if d > math.MaxInt64/2 {
		return 0, fmt.Errorf("it is too large")
	}
	return time.Duration(d), nil
}
