package replayer

import (
	"errors"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// failedBy notes that the image has stopped by an error. Only what it starts again from
// by itself is an end that is recorded; the rest waits for a person.
func (a *Actor) failedBy(cause core.StopCause) {
	end := report.Cause{What: "image " + a.spec(), Why: report.WhyError, When: time.Now(), Text: cause.Text}
	recorded := true
	switch cause.Reason {
	case core.EffectFailed:
		// What passes is waited for; it is no end of anything.
		end.Class, recorded = cause.Class.String(), cause.Class != rados.Transient
	case core.LockWasLost:
		end.Why = report.WhyLock
	case core.NoProgress:
		end.Why = report.WhyStuck
	default:
		recorded = false
	}
	a.lastErr = &end
	a.evidence(cause)
	if recorded {
		a.record(end)
	}
}

// record remembers an end that is followed by another start. Whoever remembers it beyond
// this process has it when this returns.
func (a *Actor) record(end report.Cause) {
	a.own.Add(end, a.broke)
	if a.opt.Record != nil {
		a.opt.Record(end, a.broke)
	}
	a.broke = true
}

// injected panics if a test wants it.
func (a *Actor) injected(m core.Msg) {
	if _, ok := m.(core.Applied); ok && a.opt.Panics != nil && a.opt.Panics(a.spec()) {
		panic("injected by rbd_warden_inject_panic")
	}
}

// parkAfter is how many times in a row an image may fail by an error that another attempt
// meets again before it counts as parked: it is looked at slowly and without end, and its
// cause is on display.
const parkAfter = 4

// parked tells whether the image has failed too often in a way that does not pass. Errors
// that pass (a cluster that is away) never park.
func (a *Actor) parked() bool {
	cause := a.core.Cause()
	return cause.Reason == core.EffectFailed && (cause.Class == rados.Corrupt || cause.Class == rados.Permanent) &&
		!a.core.Progressing() && a.failed >= parkAfter
}

// evidence tells of a failure that may be the worker's: of an operation on the local cluster
// that says nothing about any one object. What the peer's cluster does, what is damaged and
// what an image is or has points at nobody else.
func (a *Actor) evidence(cause core.StopCause) {
	var failed *rados.Error
	if cause.Reason != core.EffectFailed || !errors.As(cause.Err, &failed) || a.opt.LocalCluster == "" ||
		failed.Cluster != a.opt.LocalCluster || failed.Cluster == a.opt.There {
		return
	}
	if cause.Class == rados.Transient || errors.Is(cause.Err, syscall.EACCES) || errors.Is(cause.Err, syscall.EPERM) {
		a.tell(supervision.Failed{When: time.Now(), Who: a.opt.Key.String(), Class: cause.Class.String(), Text: report.OneLine(cause.Text)})
	}
}

// workedInterval is how often at most an image tells that the local cluster works.
const workedInterval = 2 * time.Second

// worked tells that the local cluster did something for this image, if a message says so.
func (a *Actor) worked(m core.Msg) {
	done := false
	switch m.(type) {
	case core.LocalPrepared, core.LocalOpened:
	case core.Applied, core.Synced:
		done = true
	default:
		return
	}
	if now := time.Now(); now.Sub(a.workedAt) >= workedInterval || done && !a.workedDone {
		a.workedAt, a.workedDone = now, done
		a.tell(supervision.Worked{When: now, Who: a.opt.Key.String(), Done: done})
	}
}
