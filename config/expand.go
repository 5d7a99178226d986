package config

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// Scope gives the metavariables of Ceph's configuration their values.
type Scope struct {
	Cluster string
	Entity  Entity
	Host    string // short name
	PID     string
	CCTID   uint64 // Ceph: address of the context. Here: any number, one per process
	Home    string
	// Option reads another option, unexpanded; ok is false if there is none of that
	// name. May be nil.
	Option func(name string) (value string, ok bool)
}

// Expand replaces $name and ${name} in s. Names are metavariables or options. Names
// of neither stay as they are, as in Ceph. An option that comes to need itself is an
// error.
func (sc Scope) Expand(s string) (string, error) { return sc.expand(s, nil) }

func (sc Scope) expand(s string, within []string) (string, error) {
	var b strings.Builder
	for {
		before, after, found := strings.Cut(s, "$")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		name, rest := metavariable(after)
		v, err := sc.value(name, within)
		if err != nil {
			return "", err
		}
		if v == nil {
			b.WriteByte('$')
			b.WriteString(after[:len(after)-len(rest)])
		} else {
			b.WriteString(*v)
		}
		s = rest
	}
}

// metavariable splits what follows a dollar sign into the name of a variable (""
// if it is none) and the rest.
func metavariable(s string) (name, rest string) {
	valid := func(s string) int {
		i := 0
		for i < len(s) && (s[i] == '_' || s[i] >= 'a' && s[i] <= 'z') {
			i++
		}
		return i
	}
	if strings.HasPrefix(s, "{") {
		n := valid(s[1:])
		if n > 0 && len(s) > n+1 && s[n+1] == '}' {
			return s[1 : n+1], s[n+2:]
		}
		return "", s
	}
	n := valid(s)
	return s[:n], s[n:]
}

// value is the value of a variable, nil if there is none of that name.
func (sc Scope) value(name string, within []string) (*string, error) {
	var v string
	switch name {
	case "":
		return nil, nil
	case "cluster":
		v = sc.Cluster
	case "type":
		v = sc.Entity.Type
	case "id", "num":
		v = sc.Entity.ID
	case "name":
		v = sc.Entity.String()
	case "host":
		v = sc.Host
	case "pid":
		v = sc.PID
	case "cctid":
		v = strconv.FormatUint(sc.CCTID, 10)
	case "home":
		v = sc.Home
	default:
		if sc.Option == nil {
			return nil, nil
		}
		raw, ok := sc.Option(name)
		if !ok {
			return nil, nil
		}
		if slices.Contains(within, name) {
			return nil, fmt.Errorf("option %s needs itself: %s", name,
				strings.Join(append(slices.Clone(within), name), " -> "))
		}
		var err error
		if v, err = sc.expand(raw, append(slices.Clone(within), name)); err != nil {
			return nil, err
		}
	}
	return &v, nil
}
