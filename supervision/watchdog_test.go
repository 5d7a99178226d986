package supervision

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestWatchdog: what does not get on is told of, restarted, and let go, each once; what
// gets on, however slowly, or has nothing to do, is left alone.
func TestWatchdog(t *testing.T) {
	// Looks are five seconds apart but where the story says so.
	patience := Patience{Report: 30 * time.Second, Restart: 100 * time.Second, Grace: 20 * time.Second}
	type span struct {
		until int  // seconds
		due   bool // all the time
		every int  // seconds between two pulses; 0: none
	}
	type alarm struct {
		at    int
		alarm Alarm
	}
	for _, c := range []struct {
		name   string
		spans  []span
		gap    [2]int // no looks between these seconds
		alarms []alarm
	}{
		{"nothing to do", []span{{1000, false, 0}}, [2]int{}, nil},
		{"a sync of hours that gets on", []span{{10000, true, 25}}, [2]int{}, nil},
		{"it hangs", []span{{1000, true, 0}}, [2]int{}, []alarm{{30, Stalls}, {100, MustRestart}, {120, LetGo}}},
		{"it hangs after a time of work", []span{{500, true, 10}, {1000, true, 0}}, [2]int{}, []alarm{{520, Stalls}, {590, MustRestart}, {610, LetGo}}},
		{"it was slow", []span{{50, true, 0}, {200, true, 5}}, [2]int{}, []alarm{{30, Stalls}, {50, Recovers}}},
		{"what was due is done", []span{{50, true, 0}, {200, false, 0}}, [2]int{}, []alarm{{30, Stalls}, {50, Recovers}}},
		{"it ends when it is cancelled", []span{{105, true, 0}, {200, true, 5}}, [2]int{}, []alarm{{30, Stalls}, {100, MustRestart}, {105, Recovers}}},
		{"and hangs again", []span{{105, true, 0}, {110, true, 5}, {300, true, 0}}, [2]int{},
			[]alarm{{30, Stalls}, {100, MustRestart}, {105, Recovers}, {135, Stalls}, {205, MustRestart}, {225, LetGo}}},
		{"it waits, works, waits: each wait counts for itself", []span{{20, true, 0}, {25, false, 0}, {50, true, 0}, {55, false, 0}, {80, true, 0}}, [2]int{}, nil},
		{"the process was stopped for a while", []span{{2000, true, 10}}, [2]int{200, 800}, nil},
		{"stopped while something hangs: time begins where it was", []span{{2000, true, 0}}, [2]int{60, 660},
			[]alarm{{30, Stalls}, {700, MustRestart}, {720, LetGo}}},
		{"stopped while it is being cancelled", []span{{2000, true, 0}}, [2]int{105, 705}, []alarm{{30, Stalls}, {100, MustRestart}, {720, LetGo}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := NewWatchdog(patience)
			var got []alarm
			var pulse uint64
			from := 0
			for _, s := range c.spans {
				for sec := from; sec < s.until; sec += 5 {
					if s.every > 0 && sec%s.every == 0 {
						pulse++
					}
					if sec > c.gap[0] && sec < c.gap[1] {
						continue
					}
					if a := w.Look(Look{When: at(float64(sec)), Due: s.due, Pulse: pulse}); a != Quiet {
						got = append(got, alarm{sec, a})
					}
				}
				from = s.until
			}
			if len(got) != len(c.alarms) {
				t.Fatalf("got %v, want %v", got, c.alarms)
			}
			for i := range got {
				if got[i] != c.alarms[i] {
					t.Errorf("got %v, want %v", got, c.alarms)
				}
			}
		})
	}
}

// TestWatchdogNeverBitesWhatGetsOn: whatever else happens, there is no alarm within the
// first threshold after a pulse, and nothing is let go that was not to be restarted before.
func TestWatchdogNeverBitesWhatGetsOn(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Patience{Report: time.Minute, Restart: 3 * time.Minute, Grace: time.Minute}
		w := NewWatchdog(p)
		now, pulsed, asked := t0, t0, false
		var pulse uint64
		for range 200 {
			now = now.Add(time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "step")))
			due := rapid.IntRange(0, 9).Draw(t, "due") > 0
			if rapid.IntRange(0, 9).Draw(t, "pulse") == 0 {
				pulse, pulsed = pulse+1, now
			}
			a := w.Look(Look{When: now, Due: due, Pulse: pulse})
			if (a == Stalls || a == MustRestart || a == LetGo) && (now.Sub(pulsed) < p.Report || !due) {
				t.Fatalf("%v, %v after a pulse", a, now.Sub(pulsed))
			}
			if a == LetGo && !asked {
				t.Fatal("let go without a restart")
			}
			if a == MustRestart || a == Recovers {
				asked = a == MustRestart
			}
		}
	})
}
