package replayer

import (
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Pauses before a stopped image looks again. The looks cost a handful of small reads.
const (
	recheckRole  = 5 * time.Second // somebody may promote or demote
	recheckOther = 2 * time.Second // another image gets on; each look costs some ten small reads
	recheckSplit = 10 * time.Second
	recheckStuck = 30 * time.Second // a person has to act (rbd_mirror_image_state_check_interval)
	soon         = 100 * time.Millisecond
	firstRetry   = time.Second
	longestRetry = 30 * time.Second
)

// Retry is the policy after an image has stopped: how long to wait before it starts
// again, and whether it does by itself. jitter is in [0, 1).
func Retry(cause core.StopCause, failures int, jitter float64) (time.Duration, bool) {
	switch cause.Reason {
	case core.StopRequested, core.NothingToDo:
		return 0, false
	case core.RemoteGone, core.ResyncWanted, core.Removing:
		return soon, true // the local copy was removed, or is to be
	case core.LocalIsPrimary, core.LocalDisabling, core.RemoteNotPrimary, core.RemoteDemoted, core.ForcePromoted:
		return spread(recheckRole, jitter), true
	case core.AwaitingImage:
		return spread(recheckOther, jitter), true
	case core.AwaitingOperator:
		return spread(recheckRole, jitter), true
	case core.SplitBrained, core.PeerDisconnected, core.EntriesMissed, core.WrongPeerImage:
		return spread(recheckSplit, jitter), true // an operator asks for a resync, and watches
	case core.LockWasLost:
		return spread(firstRetry, jitter), true
	case core.NoProgress:
		return spread(backOff(failures), jitter), true
	case core.EffectFailed:
		if cause.Class == rados.Corrupt || cause.Class == rados.Permanent {
			return spread(min(backOff(failures)*2, recheckStuck), jitter), true
		}
		return spread(backOff(failures), jitter), true
	}
	return spread(recheckStuck, jitter), true
}

// backOff doubles from firstRetry to longestRetry.
func backOff(failures int) time.Duration {
	d := firstRetry
	for i := 1; i < failures && d < longestRetry; i++ {
		d *= 2
	}
	return min(d, longestRetry)
}

// spread adds up to a quarter, so that images that failed together do not come back
// together.
func spread(d time.Duration, jitter float64) time.Duration {
	return d + time.Duration(jitter*float64(d)/4)
}
