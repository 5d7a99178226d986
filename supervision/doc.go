// Package supervision decides what happens after something died. It is pure: no
// clock, no randomness, no I/O. Package process supervises worker processes with
// it; actors supervise images with it.
//
//	            Died                          delay over (Started)
//	running ───────────► waiting(delay) ─────────────────────────► running
//	   ▲                    │ more than Intensity deaths in Window
//	   │                    ▼
//	   └──────────────── parked(ParkedRetry)
//
// The delay grows from Min by Factor with each death, up to Max, and is drawn at
// random between half of that and all of it, so that things that died together do
// not come back together. Something that has run for Calm is forgiven: the next
// delay is the first one again. Parked things are retried slowly and without end:
// nothing here gives up, because a person may be asleep.
//
// A Watchdog tells when something does not get on, by its progress. An Escalation tells
// when what fails points at the worker process and not at one image. A Ledger remembers
// all ends, beyond the lives of those who saw them.
package supervision
