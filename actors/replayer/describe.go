package replayer

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
)

// account is what the description of an image that does not replay is made from. Both
// sites' statuses carry the same text, so it names the sites instead of saying "local"
// and "remote".
type account struct {
	image       string // as rbd takes it: POOL[/NAMESPACE]/IMAGE
	here, there string // names of this site and of the peer's
	cause       core.StopCause
	local       core.Promotion // what the image is here, and there, as last seen
	remote      core.Promotion
	synced      bool      // the copy here is known to be whole
	since       time.Time // when the image first stopped for this reason
	attempts    int       // since then
	next        time.Time // of the next one; zero: none by itself
	trying      bool      // one is under way
}

// MaxDescription bounds a description, in bytes. RADOS would take more; a line that
// people read, and that every site's OSDs keep for every image, should not be longer.
const MaxDescription = 1200

// maxCause bounds the part of it that comes from an error, so that the advice behind it
// is never cut off.
const maxCause = 640

// String is the description: upstream's words first, because scripts look for them,
// then what it means and what to do, then what follows by itself.
func (a account) String() string {
	text := report.Bounded(report.OneLine(a.cause.Text), maxCause)
	if text == "" {
		text = a.cause.Reason.String()
	}
	join := ": "
	if a.cause.Reason == core.EffectFailed {
		join = "; " // the text is an error, with colons of its own
		if hint := rados.Explain(a.cause.Err); hint != "" {
			text += " (" + hint + ")"
		}
	}
	for _, more := range []string{a.advice(), a.outlook()} {
		if more != "" {
			text += join + more
		}
		join = "; "
	}
	return report.Bounded(text, MaxDescription)
}

// advice says what a reason means for this image and what an operator can do.
func (a account) advice() string {
	i, h, t := a.image, a.here, a.there
	switch a.cause.Reason {
	case core.StopRequested:
		if strings.Contains(a.cause.Text, ":") {
			return "" // not by an operator: it says why
		}
		return fmt.Sprintf("`rbd-warden image start %s` on %s goes on", i, h)
	case core.LocalIsPrimary:
		return fmt.Sprintf("%s is written on %s, which replays nothing into it", i, h)
	case core.LocalDisabling:
		return fmt.Sprintf("`rbd mirror image disable %s` on %s is under way or was interrupted; if it was, run it again", i, h)
	case core.RemoteNotPrimary:
		return a.nobodyIsPrimary()
	case core.RemoteGone:
		return fmt.Sprintf("%s was removed on %s, or its mirroring disabled there; the copy on %s goes, too (after rbd_mirroring_delete_delay)", i, t, h)
	case core.RemoteMissing:
		return fmt.Sprintf("to use it, `rbd mirror image promote %s` on %s; to keep it without mirroring, `rbd mirror image disable %s` there", i, h, i)
	case core.SplitBrained:
		return fmt.Sprintf("%s was changed on %s and on %s independently; `rbd mirror image resync %s` on the site whose changes may be lost "+
			"(after `rbd mirror image demote` there, if it is primary), and have the image primary on the other", i, h, t, i)
	case core.ResyncWanted:
		return fmt.Sprintf("the copy of %s on %s is made anew from %s", i, h, t)
	case core.Removing:
		return fmt.Sprintf("what is left of %s on %s", i, h)
	case core.PeerDisconnected:
		return fmt.Sprintf("the journal of %s on %s no longer waits for %s, which was too far behind or was disconnected by `rbd journal client disconnect`; "+
			"`rbd mirror image resync %s` on %s makes a new copy (rbd_mirroring_resync_after_disconnect does so by itself)", i, t, h, i, h)
	case core.EntriesMissed, core.WrongPeerImage:
		return fmt.Sprintf("`rbd mirror image resync %s` on %s", i, h)
	case core.RemoteDemoted:
		return fmt.Sprintf("all that was written to %s on %s until then is on %s; `rbd mirror image promote %s` on either makes it primary", i, t, h, i)
	case core.ForcePromoted:
		return fmt.Sprintf("%s is primary on %s now; what %s wrote and is not here is in no copy but its own; "+
			"to follow %s again, `rbd mirror image demote %s` and `rbd mirror image resync %s` on %s", i, h, t, h, i, i, t)
	case core.LockWasLost:
		return a.lockLost()
	case core.EffectFailed:
		return a.failed()
	}
	return ""
}

// nobodyIsPrimary is for an image without a primary that this site could follow.
func (a account) nobodyIsPrimary() string {
	where := fmt.Sprintf("%s is not primary on %s", a.image, a.there)
	if a.local == core.Orphan && a.remote == core.Orphan {
		where = fmt.Sprintf("%s is demoted on %s and on %s", a.image, a.here, a.there)
	}
	return where + fmt.Sprintf("; `rbd mirror image promote %s` on the site that is to be written", a.image)
}

func (a account) lockLost() string {
	why := "another owner took the image over, or its watch ended"
	if a.cause.Err != nil {
		why = report.Bounded(report.OneLine(a.cause.Err.Error()), maxCause/2)
	}
	return fmt.Sprintf("%s on %s: %s", a.image, a.here, why)
}

// failed says what follows from an operation that did not work.
func (a account) failed() string {
	var (
		diverged *DivergedError
		damaged  *journal.CorruptError
		cluster  *rados.Error
		err      = a.cause.Err
		resync   = fmt.Sprintf("`rbd mirror image resync %s` on %s makes a new copy", a.image, a.here)
	)
	switch {
	case errors.As(err, &diverged), errors.Is(err, journal.ErrTrimmed), errors.Is(err, journal.ErrDisconnected), errors.Is(err, journal.ErrNotRegistered):
		return resync
	case errors.As(err, &damaged):
		return fmt.Sprintf("what comes before it is on %s; repair the journal on %s, or %s", a.here, a.there, resync)
	case a.cause.Class == rados.Fenced:
		return "the daemon's process starts again under a new identity"
	case a.cause.Class == rados.Transient && errors.As(err, &cluster) && cluster.Cluster == a.there && a.there != "":
		if !a.synced {
			return fmt.Sprintf("what is on %s stays as it is", a.here)
		}
		return fmt.Sprintf("the copy on %s stays as it is; if %s is lost, `rbd mirror image promote --force %s` on %s makes it primary", a.here, a.there, a.image, a.here)
	}
	return ""
}

// outlook says since when it is so and what follows by itself. Times are points in
// time: a status is read long after it was written.
func (a account) outlook() string {
	switch {
	case !a.cause.IsError():
		return "" // a look every few seconds, not worth a new text each time
	case a.needsPerson():
		return fmt.Sprintf("since %s, looked at again every %s", report.Stamp(a.since), waitsFor(a.cause))
	case a.trying:
		return fmt.Sprintf("since %s, attempt %d is under way", report.Stamp(a.since), a.attempts+1)
	case a.next.IsZero():
		return "since " + report.Stamp(a.since)
	}
	return fmt.Sprintf("since %s, attempt %d follows by itself at %s", report.Stamp(a.since), a.attempts+1, report.Stamp(a.next))
}

// needsPerson tells whether trying again cannot help until somebody has acted.
func (a account) needsPerson() bool {
	switch a.cause.Reason {
	case core.LockWasLost, core.NoProgress, core.EffectFailed:
		return false
	}
	return true
}

// waitsFor is the longest time between two looks.
func waitsFor(cause core.StopCause) time.Duration {
	d, _ := Retry(cause, 100, 0)
	return d
}
