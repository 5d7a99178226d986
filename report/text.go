package report

import (
	"fmt"
	"strings"
	"time"
	"unicode/utf8"
)

// Stamp is a point in time as people compare it with their logs, to the second. Texts
// that are read later name points in time, not durations until or since then.
func Stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

// OneLine makes one line of a text that has several.
func OneLine(s string) string {
	return strings.Join(strings.FieldsFunc(s, func(r rune) bool { return r == '\n' || r == '\r' }), "; ")
}

// Bounded cuts a text at max bytes (at least 3), between characters.
func Bounded(s string, max int) string {
	const mark = "..."
	if len(s) <= max {
		return s
	}
	s = s[:max-len(mark)]
	for len(s) > 0 {
		if r, size := utf8.DecodeLastRuneInString(s); r != utf8.RuneError || size != 1 {
			break
		}
		s = s[:len(s)-1]
	}
	return s + mark
}

// Short is the cause in one line of at most max bytes: when, what and why.
func (c *Cause) Short(max int) string {
	if c == nil {
		return ""
	}
	return Bounded(Stamp(c.When)+" "+c.What+": "+c.String(), max)
}

// DaemonName is how people are told of a daemon.
func DaemonName(host string, pid int) string { return fmt.Sprintf("%s, pid %d", host, pid) }
