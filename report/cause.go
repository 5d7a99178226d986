package report

import (
	"fmt"
	"time"
)

// Why is the kind of an end.
type Why string

// The kinds of ends. They are words of the JSON interface.
const (
	WhyFinished Why = "finished"  // ended by itself without an error
	WhyAsked    Why = "asked"     // was asked to end
	WhyError    Why = "error"     // an operating error that it could not live with
	WhyPanic    Why = "panic"     // a Go panic
	WhyAssert   Why = "assertion" // a C++ assertion
	WhyExit     Why = "exit"      // the process exited with a code
	WhySignal   Why = "signal"    // the process was ended by a signal
	WhyOOM      Why = "oom"       // the kernel's out-of-memory killer
	WhyMemory   Why = "memory"    // it passed its memory limit and was killed by supervision
	WhySilent   Why = "silent"    // it did not say that it is alive, and was killed
	WhyUnready  Why = "unready"   // it did not get ready in time, and was killed
	WhySpawn    Why = "spawn"     // it could not be started
	WhyLock     Why = "lock"      // it lost its exclusive lock, or the watch that goes with it
	WhyStuck    Why = "stuck"     // it made no progress, or something in it did not end
	// WhyAbandoned: something in it that may write did not end, so that only a new process may
	// run it again.
	WhyAbandoned Why = "abandoned"
	// WhyEscalated: the worker was replaced because what failed pointed at it, and not
	// at one image.
	WhyEscalated Why = "escalated"
)

// Levels are what can end and be started again, from the inside out.
const (
	LevelImage  = "image"
	LevelPool   = "pool"
	LevelWorker = "worker"
)

// Cause says what died, why and when.
type Cause struct {
	What   string    `json:"what"` // as in "worker 0" or "image rbd/vm-1"
	Why    Why       `json:"why"`
	When   time.Time `json:"when"`
	Class  string    `json:"class,omitempty"`  // class of the error, as in "transient"
	Code   int       `json:"code,omitempty"`   // exit code
	Signal string    `json:"signal,omitempty"` // as in "killed"
	// Limit names the limit that an out-of-memory kill enforced: "host", the path of a
	// cgroup, or the worker's own group with its size in bytes.
	Limit string `json:"limit,omitempty"`
	Text  string `json:"text,omitempty"` // the message, for people; may have many lines
	// Times counts equal ends in a row that are told as one, when there is more than one:
	// When is the last one's then, First the first one's.
	Times int       `json:"times,omitempty"`
	First time.Time `json:"first,omitzero"`
}

// Reason is the word under which ends like this one are counted: the class of an error
// that has one, else Why.
func (c Cause) Reason() string {
	if c.Why == WhyError && c.Class != "" {
		return c.Class
	}
	return string(c.Why)
}

// same tells whether two ends differ in nothing but their time.
func (c Cause) same(other Cause) bool {
	return c.What == other.What && c.Why == other.Why && c.Class == other.Class && c.Code == other.Code && c.Signal == other.Signal &&
		c.Limit == other.Limit && firstLine(c.Text) == firstLine(other.Text)
}

// String is the cause in one line (of Text, only the first line), without When.
func (c *Cause) String() string {
	if c == nil {
		return ""
	}
	s := string(c.Why)
	switch c.Why {
	case WhyExit:
		s = fmt.Sprintf("exit code %d", c.Code)
	case WhySignal:
		s = "signal: " + c.Signal
	case WhyOOM:
		s = "OOM kill"
		if c.Limit != "" {
			s += " by the limit of " + c.Limit
		}
	case WhyError:
		if c.Class != "" {
			s = c.Class + " error"
		}
	}
	if t := firstLine(c.Text); t != "" {
		s += ": " + t
	}
	if c.Times > 1 {
		s += fmt.Sprintf(" (%d times since %s)", c.Times, Stamp(c.First))
	}
	return s
}

func firstLine(s string) string {
	for i := range len(s) {
		if s[i] == '\n' {
			return s[:i]
		}
	}
	return s
}
