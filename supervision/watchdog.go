package supervision

import "time"

// Patience says how long something may have work to do without getting on.
type Patience struct {
	// Report is when it is told, and Restart, later, when it is restarted.
	Report, Restart time.Duration
	// Grace is how long after that what it has under way may take to end.
	Grace time.Duration
}

// DefaultPatience is longer than every timeout of a single operation: what ends by itself
// needs no watchdog.
var DefaultPatience = Patience{Report: 90 * time.Second, Restart: 5 * time.Minute, Grace: time.Minute}

// Look is what a watchdog sees.
type Look struct {
	When time.Time
	// Due says that something has to happen by itself. What waits for its turn, for a
	// person, for time to pass or for somebody else's work is not due, however long that
	// takes.
	Due bool
	// Pulse changes whenever it gets on: it is judged by progress, never by duration.
	Pulse uint64
}

// Alarm is what a watchdog asks for.
type Alarm uint8

// The alarms, each given once until there is progress again.
const (
	// Quiet: nothing is to be done.
	Quiet Alarm = iota
	// Stalls: tell that it does not get on.
	Stalls
	// Recovers: tell that it gets on again by itself.
	Recovers
	// MustRestart: cancel what it has under way, and start it again.
	MustRestart
	// LetGo: what it has under way did not even end when it was cancelled.
	LetGo
)

func (a Alarm) String() string {
	return [...]string{"quiet", "stalls", "recovers", "must restart", "let go"}[a]
}

// Watchdog watches one thing.
//
//	quiet ──Report──► stalls ──Restart──► restarting ──Grace──► let go
//	  ▲                  │ pulse             │ pulse
//	  └──────────────────┴───────────────────┘
type Watchdog struct {
	patience Patience
	since    time.Time // of the last progress; zero: nothing was due
	pulse    uint64
	looked   time.Time
	asked    time.Time // when it was to be restarted
	stage    Alarm
}

// asleep is the time between two looks from which on it was us who did not run, a few
// times over: then silence proves nothing.
const asleepFactor = 4

// NewWatchdog makes a watchdog.
func NewWatchdog(p Patience) *Watchdog { return &Watchdog{patience: p} }

// Interval is how often to look.
func (p Patience) Interval() time.Duration { return max(p.Report/6, time.Millisecond) }

// Since is since when there was no progress; zero while there is some, or nothing was due.
func (w *Watchdog) Since() time.Time {
	if w.stage == Quiet {
		return time.Time{}
	}
	return w.since
}

// Look looks once.
func (w *Watchdog) Look(l Look) Alarm {
	gap, looked := l.When.Sub(w.looked), !w.looked.IsZero()
	w.looked = l.When
	if !l.Due || w.since.IsZero() || l.Pulse != w.pulse {
		was := w.stage
		w.stage, w.pulse, w.since = Quiet, l.Pulse, l.When
		if !l.Due {
			w.since = time.Time{}
		}
		if was != Quiet {
			return Recovers
		}
		return Quiet
	}
	if looked && gap > asleepFactor*w.patience.Interval() {
		// We were stopped, suspended or starved: so was what we watch, and its time has
		// not passed.
		w.since, w.asked = w.since.Add(gap), w.asked.Add(gap)
		return Quiet
	}
	idle := l.When.Sub(w.since)
	switch {
	case w.stage == MustRestart && l.When.Sub(w.asked) >= w.patience.Grace:
		w.stage = LetGo
	case w.stage < MustRestart && idle >= w.patience.Restart:
		w.stage, w.asked = MustRestart, l.When
	case w.stage < Stalls && idle >= w.patience.Report:
		w.stage = Stalls
	default:
		return Quiet
	}
	return w.stage
}
