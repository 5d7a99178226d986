package replayer

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/lock"
	imagesync "github.com/rbdwarden/rbdwarden/image/sync"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Site is one side of a mirrored pool as an image sees it.
type Site struct {
	IO         rados.IOContext // the pool and namespace
	MirrorUUID string          // of that pool
}

// Resources are what the images of a pool share.
type Resources struct {
	Local, Remote Site
	GlobalID      string
	// SyncSlot waits for permission to do an initial sync; release gives it back.
	// waits is called if there is none at the moment.
	SyncSlot func(ctx context.Context, waits func()) (release func(), err error)
	// Timeout bounds each single step of a bootstrap. It has to be longer than the
	// clusters' own operation timeouts, which say more clearly what is wrong.
	Timeout time.Duration
	Limits  image.Limits
	// Lock are the settings of the exclusive lock; Policy and Trouble are ours.
	Lock lock.Options
	// RemoteSnapshots makes and removes sync points on a remote image.
	RemoteSnapshots func(imageID string) imagesync.Snapshots
	SyncLimits      imagesync.Limits
	Tail            journal.TailConfig
	// NewCredit makes a user of the worker's budget; nil: there is none.
	NewCredit func() Credit
	// NewUrgentCredit makes one that never has to wait, for looking ahead.
	NewUrgentCredit func() Credit
	// NewApplyCredit makes a user of the budget of what is being applied; nil: there is none.
	NewApplyCredit func() Credit
	// Pace gives the image its limits on bytes a second; nil: it has none.
	Pace func() Paced
	// Mirroring are the options that an image or its pool may override.
	Mirroring image.MirroringOptions
	// Trashed is called when a local image was moved to the trash.
	Trashed func()
	// ResyncInPlace keeps the copy in a re-sync unless the request says otherwise
	// (rbd_warden_resync_in_place).
	ResyncInPlace bool
	// CheckpointInterval is the time between two records of a sync's progress.
	CheckpointInterval time.Duration
	Log                zerolog.Logger
}

// performer is the Performer for real clusters (or simulated ones: it only knows
// the port). Handles are opened by one effect and used by later ones; the machine
// sees to it that no two effects touch the same handle at the same time, except
// Apply beside ReadEntries, FindOutcome and Commit, whose handles differ.
type performer struct {
	Resources
	notify func(core.Msg)

	ours         journal.Registration // our client of the remote journal, from ReadRemoteClients or RegisterPeer on
	remoteID     string               // from InitJournaler on
	remoteHeader *image.Header
	remoteMode   mirror.Mode      // of the remote pool, when it had the image
	modeChanged  time.Time        // when it was found to be another, with the image gone
	local        *localImage      // from OpenLocal until Close
	journal      *journal.Journal // the remote one, from InitJournaler until Close
	copyID       string           // id of the local image that the remote journal is replayed to
	committed    func()           // stops watching the remote journal
	looks        sync.WaitGroup   // of remoteChanged, trim and sweep
	trimming     atomic.Bool      // a trim is to come
	open         context.Context  // ends when the remote journal is closed
	shut         context.CancelFunc
	tailer       *journal.Tailer
	held         holdBack
	credit       Credit // of the worker's budget; nil: there is none
	waiting      atomic.Int32
	handed       handed
	pacing       atomic.Pointer[Paced]          // see paced
	expected     int64                          // bytes that the next read of the journal may bring: what the last one did
	ear          atomic.Pointer[journal.Tailer] // tailer, for Heard
	readErr      error                          // met behind entries that were delivered; the next read's result
	snaps        *snapMap
	doubted      time.Time                 // see trusts
	awaited      map[ceph.SnapID]time.Time // see clonesFirst: since when

	wanted   atomic.Pointer[string] // the name that the local image is to get
	renaming atomic.Bool            // keepRenaming runs

	stray bool // the primary had sync points of ours when it was looked at
}

// NewPerformer returns a performer. notify is called with what it notices by itself.
func NewPerformer(r Resources, notify func(core.Msg)) Performer {
	r.Local.IO, r.Remote.IO = pulsing{r.Local.IO}, pulsing{r.Remote.IO}
	p := &performer{Resources: r, notify: notify}
	if r.NewCredit != nil {
		p.credit = p.patiently(r.NewCredit())
	}
	return p
}

// Perform performs one effect.
func (p *performer) Perform(ctx context.Context, e core.Effect) core.Msg {
	in, unbounded := effectState(e)
	if !unbounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, p.Timeout)
		defer cancel()
	}
	m, err := p.dispatch(ctx, e)
	var wait *WaitError
	if errors.As(err, &wait) {
		return core.MustWait{State: in, Operator: wait.Operator, Err: wait}
	}
	if err != nil {
		_, reading := e.(core.ReadEntries)
		return core.Failed{State: in, Reading: reading, Class: rados.Classify(err), Err: err}
	}
	return m
}

func (p *performer) dispatch(ctx context.Context, e core.Effect) (core.Msg, error) {
	switch e := e.(type) {
	case core.PrepareLocal:
		return p.prepareLocal(ctx)
	case core.PrepareRemote:
		return p.prepareRemote(ctx)
	case core.ReadRemoteClients:
		return p.readRemoteClients(ctx, e.RemoteImageID)
	case core.OpenRemote:
		return p.openRemote(ctx, e.RemoteImageID)
	case core.UnregisterPeer:
		return p.unregisterPeer(ctx, e.RemoteImageID)
	case core.RegisterPeer:
		return p.registerPeer(ctx, e)
	case core.UpdatePeer:
		return p.updatePeer(ctx, e)
	case core.CreateLocal:
		return p.createLocal(ctx, e.ImageID)
	case core.OpenLocal:
		return p.openLocal(ctx, e.ImageID)
	case core.StartResync:
		return p.startResync(ctx, e.RemoteImageID)
	case core.FinishResync:
		return p.finishResync(ctx)
	case core.ReadRemoteTags:
		return p.readRemoteTags(ctx, e)
	case core.Sync:
		return p.sync(ctx, e)
	case core.CloseRemote:
		p.remoteHeader = nil
		return core.RemoteClosed{}, nil
	case core.InitJournaler:
		return p.initJournaler(ctx, e.RemoteImageID)
	case core.StartTailing:
		return p.startTailing(ctx)
	case core.ReadEntries:
		return p.readEntries(ctx, e.MaxBytes)
	case core.FindOutcome:
		return p.findOutcome(ctx, e.Need)
	case core.ReadRemoteTag:
		return p.readRemoteTag(ctx, e.TID)
	case core.AllocateTag:
		return p.allocateTag(ctx, e.Data)
	case core.Apply:
		return p.apply(ctx, e.Step)
	case core.Commit:
		return p.commit(ctx, e)
	case core.Close:
		return core.Closed{Err: p.Close(ctx)}, nil
	case core.RemoveLocal:
		return p.removeLocal(ctx, e.ImageID)
	}
	panic(fmt.Sprintf("replayer: no way to perform %T", e))
}

// effectState is the state that asks for an effect, for its error text, and whether
// the effect may take as long as it likes.
func effectState(e core.Effect) (in core.State, unbounded bool) {
	switch e.(type) {
	case core.PrepareLocal:
		return core.PrepareLocalImage, false
	case core.PrepareRemote:
		return core.PrepareRemoteImage, false
	case core.ReadRemoteClients:
		return core.GetRemoteTagClass, false
	case core.OpenRemote:
		return core.OpenRemoteImage, false
	case core.UnregisterPeer:
		return core.UnregisterClient, false
	case core.RegisterPeer:
		return core.RegisterClient, false
	case core.UpdatePeer:
		return core.UpdateClientImage, false
	case core.CreateLocal:
		return core.CreateLocalImage, false
	case core.OpenLocal:
		return core.OpenLocalImage, false
	case core.StartResync:
		return core.BeginResync, false
	case core.FinishResync:
		return core.EndResync, false
	case core.ReadRemoteTags:
		return core.GetRemoteTags, false
	case core.Sync:
		return core.ImageSync, true
	case core.CloseRemote:
		return core.CloseRemoteImage, false
	case core.InitJournaler:
		return core.InitRemoteJournaler, false
	case core.StartTailing:
		return core.StartReplay, false
	case core.ReadRemoteTag:
		return core.GetRemoteTag, false
	case core.AllocateTag:
		return core.AllocateLocalTag, false
	case core.Close:
		return core.CloseLocalImage, false
	case core.RemoveLocal:
		return core.RemoveLocalImage, true
	case core.ReadEntries, core.FindOutcome, core.Apply:
		return core.Replaying, true
	}
	return core.Replaying, false
}

// Heard is when the remote cluster answered the reader last, and how long it may take
// until it does again; false while there is no reader. It may be called at any time.
func (p *performer) Heard() (at time.Time, patience time.Duration, ok bool) {
	t := p.ear.Load()
	if t == nil {
		return time.Time{}, 0, false
	}
	return t.Heard(), 2*p.Tail.MaxPoll + answerTime, true
}

// answerTime is how long an answer of a cluster that is well may take.
const answerTime = 2 * time.Second

// Release gives the local image up, and only that, while reads are still under way that do
// not end.
func (p *performer) Release(ctx context.Context) error {
	if t := p.tailer; t != nil {
		go t.Close() // it may be what does not end
	}
	if p.local == nil {
		return nil
	}
	return p.local.close(ctx)
}

// Close lets go of everything, the local image first: a remote cluster that does not
// answer must not keep the local image locked (invariant 11).
func (p *performer) Close(ctx context.Context) error {
	var err error
	if p.local != nil {
		err = p.local.close(ctx)
		p.local = nil
	}
	if p.tailer != nil {
		p.ear.Store(nil)
		p.tailer.Close()
		p.tailer = nil
		p.handed.reset()
	}
	p.unpaced()
	p.expected = 0
	if p.shut != nil {
		p.shut()
	}
	if p.committed != nil {
		p.committed()
		p.committed = nil
	}
	p.looks.Wait()
	if p.journal != nil {
		p.journal.Close()
		p.journal = nil
	}
	p.remoteHeader, p.snaps, p.readErr, p.held = nil, nil, nil, holdBack{}
	p.wanted.Store(nil)
	return err
}
