package replayer

import (
	"fmt"
	"math"
	"strings"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/rhythm"
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
	time.AfterFunc(rhythm.Within(reportInterval), func() { system.Root.Send(self, reportDue{}) })
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
	local, remote, past := a.core.Local(), a.core.Remote(), a.past()
	r := report.Image{
		Pool: a.opt.Key.Pool, Namespace: a.opt.Key.Namespace, Name: local.Name, GlobalID: a.opt.Key.GlobalID,
		LocalID: local.ImageID, RemoteID: remote.ImageID,
		State: state, Step: a.core.State().String(), Description: description, Since: a.since,
		EntriesBehind: -1, LagSeconds: -1, SyncPercent: -1,
		BytesPerSecond: bytes, EventsPerSecond: entries, Restarts: past.Restarts, Replayed: a.replayed.Read(),
		Stopped: a.halted, Paused: a.paused != "", Settled: a.settled, NextStart: a.nextAt, LastCause: past.LastCause, History: past.Ends,
		Parked: a.parked(), HeldBack: a.heldBack(now), StalledSeconds: a.stalledFor(now).Seconds(),
	}
	if p, ok := a.core.Progress(); ok {
		r.EntriesBehind = p.EntriesBehind
		if d, known := lag(p, a.silence(p, now), now); known {
			r.LagSeconds = d.Seconds()
		}
		r.Primary, r.Safe = position(p.Primary), position(p.Safe)
	}
	if a.perform != nil {
		r.BytesHeld = a.perform.Held()
	}
	if a.core.State() == core.ImageSync {
		r.SyncPercent = syncPercent(a.core.Sync())
	}
	return r
}

// slowed is a Performer that knows whether a limit on bytes a second slows it down.
type slowed interface {
	// HeldBack says which; "" if none does.
	HeldBack(now time.Time) string
}

// heldBack is the limit that slows the image down; "" if none does.
func (a *Actor) heldBack(now time.Time) string {
	if s, ok := a.perform.(slowed); ok {
		return s.HeldBack(now)
	}
	return ""
}

// past is how often the image was started again, by whomever, and why the last time.
func (a *Actor) past() messages.Past {
	own := messages.PastOf(a.own).Plus(a.opt.Past)
	if a.lastErr != nil && !a.core.Progressing() && (own.LastCause == nil || a.lastErr.When.After(own.LastCause.When)) {
		own.LastCause = a.lastErr // of a kind that is not recorded: it counts only until the image replays again
	}
	return own
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
// where it has words. While a stopped image only looks whether it may start, it keeps
// the status that it had: an image that fails and starts again stays in "error" until it
// replays, and a primary stays "stopped".
func (a *Actor) status(now time.Time) (state, description string) {
	state, description = a.plainStatus(now)
	if held := a.heldBack(now); held != "" && state == stateSyncing {
		description += "; held back by " + held
	}
	if stall := a.stallText(); stall != "" && state != stateReplaying {
		description = report.Bounded(description, MaxDescription/2) + "; " + stall
	}
	return state, description
}

func (a *Actor) plainStatus(now time.Time) (state, description string) {
	cause := a.core.Cause()
	switch s := a.core.State(); s {
	case core.Replaying, core.GetRemoteTag, core.AllocateLocalTag:
		return stateReplaying, "replaying, " + a.replayDescription(now)
	case core.Paused:
		return stateStopped, a.pausedDescription() + ", " + a.replayDescription(now)
	case core.ImageSync:
		if a.core.InPlace() {
			return stateSyncing, inPlaceDescription(a.core.Sync())
		}
		return stateSyncing, "bootstrapping, IMAGE_SYNC/" + syncDescription(a.core.Sync())
	case core.BeginResync, core.EndResync:
		return stateSyncing, "resyncing in place, " + s.String()
	case core.Stopping, core.CloseLocalImage, core.RemoveLocalImage:
		if cause.IsError() {
			return stateError, a.account(true).String()
		}
		if cause.Reason == core.AwaitingImage {
			return stateStartingReplay, a.account(true).String()
		}
		return stateStoppingReplay, strings.TrimSuffix("stopping replay: "+report.Bounded(report.OneLine(cause.Text), maxCause), ": ")
	case core.Stopped:
		if a.blocked {
			return stateError, a.blockedDescription()
		}
		if a.halted && a.asked != "" {
			return stateStopped, a.haltedDescription() // whatever had stopped it before
		}
		return stoppedState(cause), a.stoppedDescription(false)
	default:
		if cause.IsError() || looksOnly(cause) {
			return stoppedState(cause), a.stoppedDescription(true)
		}
		return stateStartingReplay, "starting replay, " + s.String()
	}
}

// stoppedState is the status word of an image that has stopped.
func stoppedState(cause core.StopCause) string {
	switch {
	case cause.Reason == core.RemoteNotPrimary:
		return stateUnknown
	case cause.Reason == core.AwaitingImage:
		return stateStartingReplay
	case cause.IsError():
		return stateError
	}
	return stateStopped
}

// looksOnly tells whether an image that stopped for that reason starts only to look
// whether the reason has gone.
func looksOnly(cause core.StopCause) bool {
	switch cause.Reason {
	case core.LocalIsPrimary, core.LocalDisabling, core.RemoteNotPrimary, core.RemoteDemoted, core.ForcePromoted,
		core.AwaitingImage:
		return true
	}
	return false
}

func (a *Actor) stoppedDescription(trying bool) string {
	switch cause := a.core.Cause(); {
	case cause.Reason == core.NeverStarted:
		return "stopped"
	case cause.Reason == core.StopRequested && a.restart:
		return "stopped: restarting"
	}
	return a.account(trying).String()
}

func (a *Actor) haltedDescription() string {
	said := a.account(false)
	said.cause = core.StopCause{Reason: core.StopRequested, Text: a.asked}
	return said.String()
}

// pausedDescription is about an image in PAUSED.
func (a *Actor) pausedDescription() string {
	words := a.paused
	if words == "" {
		words = "paused"
	}
	return fmt.Sprintf("%s: %s keeps the image's lock and its place in the journal; `rbd-warden image resume %s` there goes on",
		report.Bounded(report.OneLine(words), maxCause), a.opt.Here, a.spec())
}

// account is what a description says of the reason for which the image stopped.
func (a *Actor) account(trying bool) account {
	since := a.bad
	if since.IsZero() {
		since = time.Now()
	}
	local, remote := a.core.Local(), a.core.Remote()
	return account{
		image: a.spec(), here: a.opt.Here, there: a.opt.There, cause: a.core.Cause(),
		local: local.Promotion, remote: remote.Promotion,
		synced: a.synced, since: since, attempts: max(1, a.attempts), next: a.nextAt, trying: trying,
	}
}

// spec is the image's name as rbd takes it; its global id while there is no name.
func (a *Actor) spec() string {
	if name := a.core.Local().Name; name != "" {
		return a.opt.Key.PoolKey.String() + "/" + name
	}
	return a.opt.Key.String()
}

// syncDescription is where an initial sync stands (src/tools/rbd_mirror/ImageSync.cc).
func syncDescription(s core.SyncProgressed) string {
	switch {
	case s.Waiting:
		return "NOTIFY_SYNC_REQUEST: waiting for a slot among rbd_mirror_concurrent_image_syncs"
	case s.ObjectsTotal == 0:
		return "CREATE_SYNC_POINT"
	}
	return fmt.Sprintf("COPY_IMAGE %.0f%% (%d of %d objects)", math.Floor(syncPercent(s)), s.ObjectsDone, s.ObjectsTotal)
}

func syncPercent(s core.SyncProgressed) float64 {
	if s.ObjectsTotal == 0 {
		return 0
	}
	return 100 * float64(s.ObjectsDone) / float64(s.ObjectsTotal)
}
