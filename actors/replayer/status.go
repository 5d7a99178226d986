package replayer

import (
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/report"
)

// reportInterval is how often a status that changes all the time (positions,
// progress) is told. A new state is told at once.
const reportInterval = time.Second

// publish reports the status: at once if its state has changed, else soon.
func (a *Actor) publish(c actor.Context) {
	if state, _ := a.status(time.Now()); state != a.stage {
		a.report(c)
		return
	}
	if a.pending {
		return
	}
	a.pending = true
	self, system := c.Self(), c.ActorSystem()
	time.AfterFunc(reportInterval, func() { system.Root.Send(self, reportDue{}) })
}

func (a *Actor) report(c actor.Context) {
	if c.Parent() == nil {
		return
	}
	c.Send(c.Parent(), messages.ImageReport{Key: a.opt.Key, Report: a.snapshot(time.Now())})
}

// snapshot is the image's report at this moment.
func (a *Actor) snapshot(now time.Time) report.Image {
	state, description := a.status(now)
	a.stage = state
	entries, bytes := a.rates.perSecond(now)
	local, remote := a.core.Local(), a.core.Remote()
	r := report.Image{
		Pool: a.opt.Key.Pool, Namespace: a.opt.Key.Namespace, Name: local.Name, GlobalID: a.opt.Key.GlobalID,
		LocalID: local.ImageID, RemoteID: remote.ImageID,
		State: state, Step: a.core.State().String(), Description: description, Since: a.since,
		EntriesBehind: -1, LagSeconds: -1, SyncPercent: -1,
		BytesPerSecond: bytes, EventsPerSecond: entries, Replayed: a.replayed.Read(),
		Paused: a.paused, NextStart: a.nextAt, LastCause: a.lastErr, Trace: append([]report.Step(nil), a.trace.steps...),
	}
	if p, ok := a.core.Progress(); ok {
		r.EntriesBehind, r.LagSeconds = p.EntriesBehind, lag(p, now).Seconds()
		r.BytesHeld = int64(p.BytesHeld)
		r.Primary, r.Safe = position(p.Primary), position(p.Safe)
	}
	if a.core.State() == core.ImageSync {
		r.SyncPercent = syncPercent(a.core.Sync())
	}
	return r
}

// The status words of "rbd mirror image status" (src/cls/rbd/cls_rbd_types.h).
const (
	stateUnknown        = "unknown"
	stateError          = "error"
	stateSyncing        = "syncing"
	stateStartingReplay = "starting_replay"
	stateReplaying      = "replaying"
	stateStoppingReplay = "stopping_replay"
	stateStopped        = "stopped"
)

// status is the image's status word and its description, as rbd-mirror words them
// where it has words. An image that fails and starts again stays in "error" until it
// replays, so that the status does not flap.
func (a *Actor) status(now time.Time) (state, description string) {
	switch s := a.core.State(); s {
	case core.Replaying, core.GetRemoteTag, core.AllocateLocalTag:
		return stateReplaying, "replaying, " + a.replayDescription(now)
	case core.ImageSync:
		sync := a.core.Sync()
		if sync.ObjectsTotal == 0 {
			return stateSyncing, "bootstrapping, IMAGE_SYNC/CREATE_SYNC_POINT"
		}
		return stateSyncing, fmt.Sprintf("bootstrapping, IMAGE_SYNC/COPY_IMAGE %.0f%%", math.Floor(syncPercent(sync)))
	case core.Stopping, core.CloseLocalImage:
		if a.core.Cause().IsError() {
			return stateError, a.core.Cause().Text
		}
		return stateStoppingReplay, "stopping replay"
	case core.Stopped:
		cause := a.core.Cause()
		if a.paused && a.asked != "" {
			return stateStopped, a.asked // whatever had stopped it before
		}
		switch {
		case cause.Reason == core.NeverStarted:
			return stateStopped, "stopped"
		case cause.Reason == core.RemoteNotPrimary:
			return stateUnknown, cause.Text
		case cause.IsError():
			return stateError, cause.Text
		case cause.Text == "":
			return stateStopped, "stopped"
		}
		return stateStopped, cause.Text
	default:
		if a.lastErr != nil && a.failed > 0 {
			return stateError, a.core.Cause().Text
		}
		return stateStartingReplay, "starting replay"
	}
}

func syncPercent(s core.SyncProgressed) float64 {
	if s.ObjectsTotal == 0 {
		return 0
	}
	return 100 * float64(s.ObjectsDone) / float64(s.ObjectsTotal)
}

// lag is the age of the oldest entry that is not safe here; 0 if there is none.
func lag(p core.Progress, now time.Time) time.Duration {
	if p.EntriesBehind == 0 || p.OldestWaiting.IsZero() {
		return 0
	}
	return max(0, now.Sub(p.OldestWaiting)).Round(time.Millisecond)
}

// replayDescription is the JSON object that follows "replaying, ": rbd-mirror's keys
// (src/tools/rbd_mirror/image_replayer/journal/ReplayStatusFormatter.cc), and ours
// for the lag in time and the restarts.
func (a *Actor) replayDescription(now time.Time) string {
	p, _ := a.core.Progress()
	entries, bytes := a.rates.perSecond(now)
	d := map[string]any{
		"primary_position":       jsonPosition(p.Primary),
		"non_primary_position":   jsonPosition(p.Safe),
		"entries_behind_primary": p.EntriesBehind,
		"bytes_per_second":       bytes,
		"entries_per_second":     entries,
		"lag_seconds":            lag(p, now).Seconds(),
	}
	if p.EntriesBehind > 0 && entries > 0 {
		d["seconds_until_synced"] = uint64(math.Round(float64(p.EntriesBehind) / entries))
	}
	if p.ReplayDelay > 0 {
		d["replay_delay_seconds"] = p.ReplayDelay.Seconds() // the lag is meant
	}
	if o := p.Operation; o != nil && o.Total > 0 {
		// The positions stand still meanwhile.
		d["operation"] = map[string]any{"name": o.Name, "percent": 100 * o.Done / o.Total}
	}
	b, err := json.Marshal(d)
	if err != nil {
		panic(err) // numbers and maps always encode
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
