package replayer

import (
	"encoding/json"
	"math"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/report"
)

// ear is a Performer that knows when the remote cluster was heard last.
type ear interface {
	Heard() (at time.Time, patience time.Duration, ok bool)
}

// silence is for how long the remote cluster has said nothing, although it was asked; 0
// while it answers as it should, or while entries wait here, so that it is not asked.
func (a *Actor) silence(p core.Progress, now time.Time) time.Duration {
	e, ok := a.perform.(ear)
	if !ok || waits(p) {
		return 0
	}
	at, patience, ok := e.Heard()
	if d := now.Sub(at); ok && d > patience {
		return d
	}
	return 0
}

// waits tells whether entries were read that are not safe.
func waits(p core.Progress) bool { return !p.OldestWaiting.IsZero() || !p.WaitingSince.IsZero() }

// lag is the age of the oldest entry that is not safe here, 0 if there is none; false
// if it cannot be known: entries exist that were not read, or the remote cluster is
// silent, so that there may be some.
//
// The age goes by the entry's own time, which is the primary's clock. Should that be
// ahead of ours, the time for which we have had the entry is still true.
func lag(p core.Progress, silence time.Duration, now time.Time) (d time.Duration, known bool) {
	switch {
	case waits(p):
		if !p.WaitingSince.IsZero() {
			d = now.Sub(p.WaitingSince)
		}
		if !p.OldestWaiting.IsZero() {
			d = max(d, now.Sub(p.OldestWaiting))
		}
		return max(0, d).Round(time.Millisecond), true
	case p.EntriesBehind > 0 || silence > 0:
		return 0, false
	}
	return 0, true
}

// maxLastCause bounds the cause in the description of a replaying image, in bytes.
const maxLastCause = 200

// replayDescription is the JSON object that follows "replaying, ": rbd-mirror's keys
// (src/tools/rbd_mirror/image_replayer/journal/ReplayStatusFormatter.cc), and ours:
//
//	lag_seconds     age of the oldest entry that is not safe here; left out where it is not known
//	silent_seconds  for so long the primary's cluster has not answered; only while it does not
//	stalled_seconds for so long nothing was done here although something waits; only while it is so
//	stalled_in      what is under way
//	held_back_by    the limit on bytes a second that makes it slower than it could be; only while one does
//	restarts        how often supervision has started the image again; only if it has
//	last_cause      when and why the last time
func (a *Actor) replayDescription(now time.Time) string {
	p, _ := a.core.Progress()
	entries, bytes := a.rates.perSecond(now)
	d := map[string]any{
		"primary_position":       jsonPosition(p.Primary),
		"non_primary_position":   jsonPosition(p.Safe),
		"entries_behind_primary": p.EntriesBehind,
		"bytes_per_second":       bytes,
		"entries_per_second":     entries,
	}
	silence := a.silence(p, now)
	if age, known := lag(p, silence, now); known {
		d["lag_seconds"] = age.Seconds()
	}
	if silence > 0 {
		d["silent_seconds"] = int64(silence.Seconds())
	}
	if stall := a.stalledFor(now); stall > 0 {
		d["stalled_seconds"], d["stalled_in"] = int64(stall.Seconds()), a.stallsIn
	}
	if held := a.heldBack(now); held != "" {
		d["held_back_by"] = held
	}
	if p.ReplayDelay > 0 {
		d["replay_delay_seconds"] = p.ReplayDelay.Seconds() // the lag is meant
	}
	if o := p.Operation; o != nil && o.Total > 0 {
		// The positions stand still meanwhile.
		d["operation"] = map[string]any{"name": o.Name, "percent": 100 * o.Done / o.Total}
	}
	if p.EntriesBehind > 0 && entries > 0 {
		d["seconds_until_synced"] = uint64(math.Ceil(float64(p.EntriesBehind) / entries))
	}
	if past := a.past(); past.Restarts > 0 {
		d["restarts"] = past.Restarts
		if past.LastCause != nil {
			d["last_cause"] = past.LastCause.Short(maxLastCause)
		}
	}
	b, err := json.Marshal(d)
	if err != nil {
		panic(err) // numbers, strings and maps always encode
	}
	return string(b)
}

func jsonPosition(p journal.ObjectPosition) map[string]uint64 {
	if p == (journal.ObjectPosition{}) {
		return map[string]uint64{}
	}
	return map[string]uint64{"object_number": uint64(p.Object), "tag_tid": uint64(p.Tag), "entry_tid": uint64(p.Entry)}
}

func position(p journal.ObjectPosition) *report.Position {
	if p == (journal.ObjectPosition{}) {
		return nil
	}
	return &report.Position{Tag: uint64(p.Tag), Entry: uint64(p.Entry)}
}
