// Package core is the behaviour of one mirrored image as a pure state machine: it
// takes a message and answers with effects. It has no I/O, no clock and no
// randomness, so that every state and result can be traced, tested as a table and
// simulated. Package replayer performs the effects.
//
// The invariants that are kept here (numbers of docs/architecture.md):
//
//   - 1: a commit position is taken from the planner's checkpoint only, which never
//     passes an entry that is not durable in the local image.
//   - 2: nothing is applied outside REPLAYING and IMAGE_SYNC, and the local image's
//     lock is given up only when no effect is under way.
//   - 6: an image that is found primary, at whatever moment, is stopped before
//     anything else happens.
package core

import (
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// Config is what an image's core needs to know from outside.
type Config struct {
	LocalMirrorUUID  string // of the local pool
	RemoteMirrorUUID string // of the remote pool
	// CommitInterval is the time between two writes of the commit position while
	// entries flow.
	CommitInterval time.Duration
	// ReadBytes is how much one ReadEntries may bring.
	ReadBytes int
	// BufferBytes is how many bytes of entries may wait to be applied before
	// reading stops. One read may exceed it by ReadBytes.
	BufferBytes int
	// MaxStepBytes and MaxStepOps bound one step of writes.
	MaxStepBytes, MaxStepOps int
}

// Core is the state machine of one image. It is not safe for concurrent use.
type Core struct {
	cfg   Config
	state State
	// outstanding counts effects that will still be answered.
	outstanding int
	boot        bootstrap
	rep         *replaying // non-nil from START_REPLAY until the image stops
	sync        SyncProgressed
	cause       StopCause // valid in STOPPING, CLOSE_LOCAL_IMAGE and STOPPED
	finalCommit bool      // the commit on the way out was tried
	paused      bool      // by command; outlasts stops
	out         []Effect
}

// bootstrap is what was learnt on the way to REPLAYING.
type bootstrap struct {
	local     Local
	remote    Remote
	tagClass  journal.TagClass
	connected bool
	meta      journal.MirrorPeerClientMeta
	reg       bool // our client is registered with the remote journal
	localTag  journal.TagData
	late      bool // our client was registered just now, for a local image that exists
	link      Link
	promotion journal.TagTID // the remote's, valid if link is Reconnected
	inPlace   bool           // a re-sync keeps the local copy
}

// New returns the core of an image in STOPPED.
func New(cfg Config) *Core { return &Core{cfg: cfg} }

// State is the current state.
func (c *Core) State() State { return c.state }

// Progressing tells whether the image replays, or could if it were not paused.
func (c *Core) Progressing() bool {
	return c.state == Replaying || c.state == GetRemoteTag || c.state == AllocateLocalTag || c.state == Paused
}

// Cause says why the image stopped; only valid in STOPPING, CLOSE_LOCAL_IMAGE and STOPPED.
func (c *Core) Cause() StopCause { return c.cause }

// Outstanding is the number of effects that will still be answered.
func (c *Core) Outstanding() int { return c.outstanding }

// Local is what is known of the local image.
func (c *Core) Local() Local { return c.boot.local }

// Remote is what is known of the remote image.
func (c *Core) Remote() Remote { return c.boot.remote }

// Sync is how far the initial sync is; only valid in IMAGE_SYNC.
func (c *Core) Sync() SyncProgressed { return c.sync }

// InPlace tells whether the image is being re-synced in place.
func (c *Core) InPlace() bool { return c.boot.inPlace }

// Step takes one message and returns what is to be done, in order.
func (c *Core) Step(m Msg) []Effect {
	c.out = nil
	if isResult(m) {
		c.outstanding--
		if c.outstanding < 0 {
			panic(fmt.Sprintf("core: %T was not awaited in %s", m, c.state))
		}
	}
	switch m.(type) {
	case Pause, Resume:
		c.stepPause(m)
		return c.out
	}
	switch c.state {
	case Stopping, CloseLocalImage, RemoveLocalImage:
		c.stepStopping(m)
	case Stopped:
		c.stepStopped(m)
	default:
		c.stepRunning(m)
	}
	return c.out
}

// stepRunning handles what may come in any running state, then hands on.
func (c *Core) stepRunning(m Msg) {
	switch m := m.(type) {
	case Start:
	case Stop:
		c.stop(StopCause{Reason: StopRequested, Text: m.Reason})
	case Failed:
		if c.isPrimary() {
			c.stop(StopCause{Reason: LocalIsPrimary, Text: "local image is primary"})
			return
		}
		if m.Reading && c.rep != nil {
			c.rep.broken = &m
			c.pumpIfReplaying()
			return
		}
		c.stop(StopCause{Reason: EffectFailed, Text: failureText(m), Class: m.Class, Err: m.Err, In: m.State})
	case MustWait:
		cause := StopCause{Reason: AwaitingImage, Text: m.Err.Error(), Err: m.Err, In: m.State}
		if m.Operator {
			cause.Reason = AwaitingOperator
		}
		c.stop(cause)
	case LockLost:
		c.stop(StopCause{Reason: LockWasLost, Text: "lost exclusive lock", Err: m.Err})
	case Stalled:
		c.stalled(m)
	case LocalJournalChanged:
		c.localJournalChanged(m.Promotion, m.ResyncRequested)
	case RemoteJournalChanged:
		c.remoteJournalChanged(m)
	case Renamed:
		c.boot.local.Name = m.Name
		c.do(Publish{})
	case EntriesHeld:
		if c.rep != nil {
			c.rep.held = m
			c.do(Publish{})
		}
	case ReadingWaits:
		if c.rep != nil && c.rep.reading {
			c.rep.planner.Tight(true)
			c.pumpIfReplaying()
		}
	case SyncProgressed:
		if c.state == ImageSync {
			c.sync = m
			c.do(Publish{})
		}
	case OperationProgressed:
		if c.rep != nil {
			c.rep.operation = &m
			c.do(Publish{})
		}
	default:
		if c.rep != nil {
			c.stepReplaying(m)
		} else {
			c.stepBootstrap(m)
		}
	}
}

func (c *Core) stepStopped(m Msg) {
	if _, ok := m.(Start); ok {
		c.boot, c.rep, c.sync, c.finalCommit = bootstrap{}, nil, SyncProgressed{}, false
		c.become(PrepareLocalImage, PrepareLocal{})
	}
}

// stop leads to STOPPING, from where CLOSE_LOCAL_IMAGE follows when every effect
// has been answered. The first cause is the one that counts.
func (c *Core) stop(cause StopCause) {
	if cause.In == Stopped {
		cause.In = c.state
	}
	c.cause = cause
	c.become(Stopping, Cancel{})
	c.drain()
}

func (c *Core) stepStopping(m Msg) {
	switch m := m.(type) {
	case Applied:
		// It became durable before it could be cancelled: it counts.
		if c.rep != nil {
			c.rep.applied(m)
		}
	case Committed:
		if c.rep != nil {
			c.rep.committed = m.Position
		}
	case Closed:
		c.rep = nil
		if c.cause.Remove && c.boot.local.ImageID != "" && c.state == CloseLocalImage {
			c.become(RemoveLocalImage, RemoveLocal{ImageID: c.boot.local.ImageID})
			return
		}
		c.become(Stopped)
		return
	case LocalRemoved:
		c.become(Stopped)
		return
	case Failed:
		if c.state == RemoveLocalImage {
			c.cause = StopCause{Reason: EffectFailed, Text: failureText(m), Class: m.Class, Err: m.Err, In: m.State}
			c.become(Stopped)
			return
		}
	}
	if c.state == Stopping {
		c.drain()
	}
}

// drain closes the local image once nothing is under way any more, and before
// that commits what became safe: with the lock still held, so that no other owner
// can have moved the position meanwhile.
func (c *Core) drain() {
	if c.outstanding > 0 {
		return
	}
	if c.rep != nil && !c.finalCommit && c.cause.worthCommitting() {
		c.finalCommit = true
		if pos, ok := c.rep.uncommitted(); ok {
			c.do(Commit{Position: pos, Last: true})
			return
		}
	}
	c.become(CloseLocalImage, Close{})
}

// become changes the state; nothing else does.
func (c *Core) become(s State, effects ...Effect) {
	c.state = s
	c.do(Publish{})
	for _, e := range effects {
		c.do(e)
	}
}

func (c *Core) do(e Effect) {
	if answered(e) {
		c.outstanding++
	}
	c.out = append(c.out, e)
}

// isResult tells whether the message answers an effect.
func isResult(m Msg) bool {
	switch m.(type) {
	case Start, Stop, Flush, Pause, Resume, LockLost, LocalJournalChanged, RemoteJournalChanged, Renamed, EntriesHeld, ReadingWaits, CommitDue, Stalled,
		SyncProgressed, OperationProgressed:
		return false
	}
	return true
}

// failureText says what failed in an operator's words: the step, then the error,
// which names the object.
func failureText(f Failed) string {
	what := map[State]string{
		PrepareLocalImage:   "looking up the local image",
		PrepareRemoteImage:  "looking up the remote image",
		GetRemoteTagClass:   "reading the remote journal's clients",
		OpenRemoteImage:     "opening the remote image",
		UnregisterClient:    "unregistering from the remote journal",
		RegisterClient:      "registering with the remote journal",
		UpdateClientImage:   "updating the remote journal's client",
		UpdateClientState:   "updating the remote journal's client",
		CreateLocalImage:    "creating the local image",
		OpenLocalImage:      "opening the local image",
		BeginResync:         "preparing the re-sync in place",
		GetRemoteTags:       "reading the remote journal's tags",
		ImageSync:           "syncing the image",
		EndResync:           "completing the re-sync in place",
		InitRemoteJournaler: "opening the remote journal",
		StartReplay:         "starting replay",
		Replaying:           "replaying",
		GetRemoteTag:        "retrieving the remote tag",
		AllocateLocalTag:    "allocating a local journal tag",
		RemoveLocalImage:    "removing the local image",
	}[f.State]
	if what == "" {
		what = f.State.String()
	}
	return fmt.Sprintf("error %s: %v", what, f.Err)
}
