package imagesync

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/compare"
	"github.com/rbdwarden/rbdwarden/rados"
)

// copier copies the objects up to one sync point.
type copier struct {
	*transfer
	end      *image.Snapshot // the sync point
	versions []version
	total    uint64 // objects that any version can have
	start    uint64 // the first that is not copied yet
	fresh    bool   // the local image has never had data

	// In place: the local ids of versions, and all local snapshots, ascending.
	localSnaps, allSnaps []ceph.SnapID

	remoteMaps remoteMaps
	bytes      *semaphore.Weighted
	read       atomic.Uint64
	written    atomic.Uint64
	guess      atomic.Int64 // bytes that an object's copy reads

	mu        sync.Mutex
	next      uint64 // to be copied
	done      prefix
	localMaps *localMaps
	stored    uint64 // the local object maps are right for objects below this one
}

func newCopier(r *transfer, end *image.Snapshot, fresh bool) *copier {
	c := &copier{transfer: r, end: end, fresh: fresh, bytes: semaphore.NewWeighted(r.Limits.Bytes)}
	c.guess.Store(int64(r.remote.Layout.ObjectSize()))
	c.versions = planVersions(r.remote, r.Local.Header().Snapshots, r.Meta.SnapSeqs, end.ID)
	if r.place != nil { // what is kept is not written
		c.versions = slices.DeleteFunc(c.versions, func(v version) bool { return r.place.kept[v.local] })
	}
	for _, v := range c.versions {
		c.total = max(c.total, v.objects)
		c.localSnaps = append(c.localSnaps, v.local)
	}
	for _, s := range r.Local.Header().Snapshots { // oldest first
		c.allSnaps = append(c.allSnaps, s.ID)
	}
	// A head that once was larger may have left objects behind an interrupted copy.
	c.total = max(c.total, r.Meta.SyncObjectCount)
	if r.place != nil {
		c.total = max(c.total, r.place.objects)
	}
	if n := r.Meta.SyncPoints[0].ObjectNumber; n != nil {
		c.start = min(*n+1, c.total)
	}
	return c
}

func (c *copier) copyAll(ctx context.Context) error {
	var err error
	if c.remoteMaps, err = loadRemoteMaps(ctx, c.Remote, c.remote, c.versions); err != nil {
		return err
	}
	h := c.Local.Header()
	c.localMaps = newLocalMaps(h, c.versions, c.total, c.fresh)
	usable, err := c.localMaps.resume(ctx, c.LocalPool, c.Local, c.start, h.Features.Has(rbd.FeatureFastDiff))
	if err != nil {
		return err
	}
	if !usable {
		c.start = 0
	}
	if err := c.localMaps.expect(ctx, c.Local, c.remoteMaps, c.start, c.total); err != nil {
		return err
	}
	c.next, c.stored, c.done.next = c.start, c.start, c.start

	copying, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	group, groupCtx := errgroup.WithContext(copying)
	for range c.Limits.Objects {
		group.Go(func() error { return c.work(groupCtx) })
	}
	finished := make(chan error, 1)
	go func() { finished <- group.Wait() }()
	if err := c.supervise(ctx, finished, stop); err != nil {
		return err
	}
	return c.checkpoint(ctx)
}

// progressInterval is how often a copy tells how far it is.
const progressInterval = time.Second

// supervise reports progress and makes checkpoints until the workers have ended. One ticker
// is for both, and the end comes before a tick: of two that are due at the same moment either could
// come first, and a simulation would not repeat.
func (c *copier) supervise(ctx context.Context, finished <-chan error, stop context.CancelCauseFunc) error {
	last, interval := time.Now(), min(progressInterval, c.Checkpoint)
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var failed error
	for {
		c.report()
		select {
		case now := <-tick.C:
			if len(finished) > 0 || now.Sub(last)+interval/2 < c.Checkpoint {
				continue // the last checkpoint follows the end
			}
			last = now
			if failed == nil && c.moved() { // what asks a cluster now and then looks alive to a watchdog
				if failed = c.checkpoint(ctx); failed != nil {
					stop(failed)
				}
			}
		case err := <-finished:
			c.report()
			if failed != nil {
				return failed
			}
			return err
		}
	}
}

// watch reports the progress of a survey until it has ended.
func (r *transfer) watch(finished <-chan error) error {
	progress := time.NewTicker(progressInterval)
	defer progress.Stop()
	for {
		done, total := r.surveyed.Load(), r.toSurvey.Load()
		r.Progress(Progress{ObjectsDone: done, ObjectsTotal: 2 * total, BytesCompared: r.place.compared.Load()})
		select {
		case <-progress.C:
		case err := <-finished:
			return err
		}
	}
}

func (c *copier) report() {
	c.mu.Lock()
	done := c.done.count + c.start
	c.mu.Unlock()
	p := Progress{ObjectsDone: done, ObjectsTotal: c.total, BytesRead: c.read.Load(), BytesWritten: c.written.Load()}
	if c.place != nil {
		p.ObjectsDone += c.surveyed.Load()
		p.ObjectsTotal += c.toSurvey.Load()
		p.BytesCompared = c.place.compared.Load()
	}
	c.Progress(p)
}

// moved tells whether there is something to record since the last checkpoint.
func (c *copier) moved() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.done.next != c.stored
}

// checkpoint records that everything below the first object that is not done is done:
// the object maps, then the record.
func (c *copier) checkpoint(ctx context.Context) error {
	c.mu.Lock()
	upTo := c.done.next
	c.mu.Unlock()
	if err := c.checkSyncPoint(ctx, c.end.ID, c.end.Name); err != nil {
		return err
	}
	if upTo == c.stored {
		return nil
	}
	if err := c.localMaps.store(ctx, c.Local, c.stored, upTo); err != nil {
		return err
	}
	c.stored = upTo
	meta := c.Meta
	meta.SyncPoints = append(meta.SyncPoints[:0:0], meta.SyncPoints...)
	last := upTo - 1
	meta.SyncPoints[0].ObjectNumber = &last
	return c.save(ctx, meta)
}

// work copies objects until there are no more.
func (c *copier) work(ctx context.Context) error {
	for {
		c.mu.Lock()
		n := c.next
		if n < c.total {
			c.next++
		}
		c.mu.Unlock()
		if n >= c.total {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.object(ctx, image.ObjectNumber(n)); err != nil {
			return &ObjectError{Object: c.remote.Layout.ObjectName(image.ObjectNumber(n)), Err: err}
		}
	}
}

// copyAttempts is how often an object is looked at anew because its history changes
// (snapshots are removed) while it is being copied.
const copyAttempts = 5

func (c *copier) object(ctx context.Context, n image.ObjectNumber) error {
	if c.place != nil && !c.remoteMaps.mayExist(n) && !c.place.mayExist(uint64(n)) {
		c.finishedAs(n, mapStates(history{}, c.localSnaps, nil, false))
		return nil
	}
	clean := c.fresh
	if c.place == nil && !c.remoteMaps.mayExist(n) {
		if clean {
			c.finished(n, objectPlan{exists: make([]bool, len(c.versions))}, nil)
			return nil
		}
		return c.copyAs(ctx, n, history{}, beginning{}, nil) // it reads nothing
	}
	t, err := c.turn(ctx)
	if err != nil {
		return err
	}
	defer t.over()
	weight := min(int64(c.remote.Layout.ObjectSize()), c.Limits.Bytes)
	if err := c.bytes.Acquire(ctx, weight); err != nil {
		return err
	}
	defer c.bytes.Release(weight)
	if shared := c.Limits.Credit; shared != nil {
		whole := int64(c.remote.Layout.ObjectSize())
		if err := shared.Take(ctx, whole); err != nil {
			return err
		}
		defer shared.Give(whole)
	}
	var last history
	for attempt := range copyAttempts {
		h := history{}
		var err error
		if c.remoteMaps.mayExist(n) {
			if h, err = listHistory(ctx, c.data, c.remote.Layout.ObjectName(n)); err != nil {
				return err
			}
		}
		begin := beginning{}
		if clean {
			begin.before = absent
		}
		if c.place != nil {
			err = c.copyInPlace(ctx, n, h, t)
		} else {
			err = c.copyAs(ctx, n, h, begin, t)
		}
		var vanished *VanishedError
		var changed *compare.ChangedError
		if !errors.As(err, &vanished) && !errors.As(err, &changed) {
			return err
		}
		if attempt > 0 && h.equal(last) {
			return err
		}
		last, clean = h, false
	}
	return fmt.Errorf("its history changed during each of %d attempts: %w", copyAttempts, syscall.EAGAIN)
}

// copyInPlace brings a local object that may hold anything to what the versions say.
func (c *copier) copyInPlace(ctx context.Context, n image.ObjectNumber, h history, t *turn) error {
	name := c.place.layout.ObjectName(n)
	local, err := listHistory(ctx, c.place.data, name)
	if err != nil {
		return err
	}
	begin := beginning{before: absent}
	if head := local.at(ceph.NoSnap); head >= 0 {
		begin.before, begin.size = present, local.clones[head].Size
		clone, snap := firstClone(n, h, c.versions)
		if clone >= 0 && (clone != h.at(c.end.ID) || !c.place.isSame(uint64(n))) {
			begin.differs, err = c.differences(ctx, n, h.state(clone, snap), stored{size: begin.size})
			if err != nil {
				return err
			}
		}
	}
	wrote, err := c.carryOut(ctx, n, planObject(n, h, c.versions, begin), t)
	if err != nil {
		return err
	}
	if slices.Contains(wrote, true) {
		if local, err = listHistory(ctx, c.place.data, name); err != nil {
			return err
		}
	}
	c.finishedAs(n, mapStates(local, c.localSnaps, c.allSnaps, c.Local.Header().Features.Has(rbd.FeatureFastDiff)))
	return nil
}

// copyAs copies an object with the history that was read.
func (c *copier) copyAs(ctx context.Context, n image.ObjectNumber, h history, begin beginning, t *turn) error {
	plan := planObject(n, h, c.versions, begin)
	written, err := c.carryOut(ctx, n, plan, t)
	if err != nil {
		return err
	}
	c.finished(n, plan, written)
	return nil
}

// carryOut does what was planned, and tells in which versions it has written.
func (c *copier) carryOut(ctx context.Context, n image.ObjectNumber, plan objectPlan, t *turn) ([]bool, error) {
	written := make([]bool, len(c.versions))
	for _, s := range plan.steps {
		op, err := c.prepare(ctx, n, s, t)
		if err != nil {
			return nil, err
		}
		if op == nil {
			continue
		}
		err = c.Local.WriteObject(ctx, n, op)
		if err != nil && !(s.remove && errors.Is(err, syscall.ENOENT)) {
			return nil, err
		}
		written[s.version] = true
		c.written.Add(payload(op))
	}
	return written, nil
}

// prepare reads what a step needs and builds its write.
func (c *copier) prepare(ctx context.Context, n image.ObjectNumber, s step, t *turn) (*rados.WriteOp, error) {
	var pieces []piece
	if len(s.ranges) > 0 {
		var op rados.ReadOp
		reads := s.read(&op)
		err := c.data.Read(ctx, c.remote.Layout.ObjectName(n), &op)
		if errors.Is(err, syscall.ENOENT) {
			return nil, &VanishedError{Snap: uint64(s.readAt)}
		}
		if err != nil {
			return nil, err
		}
		for _, r := range reads {
			c.read.Add(uint64(len(r.Data)))
			t.add(len(r.Data))
		}
		if pieces, err = s.pieces(reads); err != nil {
			return nil, err
		}
	}
	return s.write(pieces, c.versions[s.version].context, c.remote.Layout.ObjectSize()), nil
}

// finished notes that an object is copied.
func (c *copier) finished(n image.ObjectNumber, plan objectPlan, written []bool) {
	fastDiff := c.Local.Header().Features.Has(rbd.FeatureFastDiff)
	c.mu.Lock()
	defer c.mu.Unlock()
	if written != nil {
		c.localMaps.set(n, plan.exists, written, fastDiff)
	}
	c.done.add(uint64(n))
}

// finishedAs is finished for an object in place, whose states were looked up.
func (c *copier) finishedAs(n image.ObjectNumber, states []rbd.ObjectState) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.localMaps.setAll(n, states)
	c.done.add(uint64(n))
}

// prefix is a growing set of numbers that knows how far it is without a gap.
type prefix struct {
	next  uint64 // the first that is missing
	ahead map[uint64]struct{}
	count uint64
}

func (p *prefix) add(n uint64) {
	p.count++
	if n != p.next {
		if p.ahead == nil {
			p.ahead = make(map[uint64]struct{})
		}
		p.ahead[n] = struct{}{}
		return
	}
	p.next++
	for {
		if _, ok := p.ahead[p.next]; !ok {
			return
		}
		delete(p.ahead, p.next)
		p.next++
	}
}
