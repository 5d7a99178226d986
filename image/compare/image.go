package compare

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Side is one of the two images that are compared.
type Side struct {
	IO     rados.IOContext // the pool and namespace of the header
	Header *image.Header
	// Snap is the snapshot. The head, ceph.NoSnap, may be compared only by who owns
	// the image's exclusive lock.
	Snap ceph.SnapID
}

// Job is one comparison.
type Job struct {
	A, B Side
	// Objects is how many are compared at a time; 0: 16.
	Objects int
	// Progress, if not nil, is called for every object, by many goroutines.
	Progress func(Progress)
}

// Progress is how far a comparison is.
type Progress struct {
	ObjectsDone, ObjectsTotal uint64
}

// Difference is an object that is not the same.
type Difference struct {
	Object  image.ObjectNumber
	Extents []rados.Extent // of the object
}

// Result is what a comparison has found.
type Result struct {
	SizeA, SizeB uint64 // of the image, bytes
	// ObjectsDiffering counts what is not the same; Differences has the first
	// MaxDifferences of them, in the order of their numbers.
	ObjectsDiffering uint64
	Differences      []Difference
	// BytesDiffering is their sum, in units of Fine.
	BytesDiffering uint64
	// ObjectsTotal is how many objects an image of the larger size can have, and
	// ObjectsCompared how many of them exist on either side.
	ObjectsTotal, ObjectsCompared uint64
	// BytesCompared counts the bytes of which the larger side was asked for checksums.
	BytesCompared uint64
	// ChecksumBytes and DataBytes are what the OSDs have sent, both sides together.
	ChecksumBytes, DataBytes uint64
}

// MaxDifferences bounds the list of differences.
const MaxDifferences = 4096

// Equal tells whether a reader sees no difference.
func (r Result) Equal() bool { return r.SizeA == r.SizeB && r.ObjectsDiffering == 0 }

// Images compares two images. It fails with a *LayoutError if checksums cannot tell,
// and with a *ChangedError if a snapshot is removed meanwhile: a removed snapshot's
// objects look like holes.
func Images(ctx context.Context, job Job) (Result, error) {
	if !SameLayout(job.A.Header.Layout, job.B.Header.Layout) {
		return Result{}, &LayoutError{Image: job.A.Header.ID, Here: job.A.Header.Layout, Other: job.B.Header.ID, There: job.B.Header.Layout}
	}
	a, err := openState(ctx, job.A)
	if err != nil {
		return Result{}, err
	}
	defer a.Close()
	b, err := openState(ctx, job.B)
	if err != nil {
		return Result{}, err
	}
	defer b.Close()
	if job.Objects <= 0 {
		job.Objects = 16
	}
	w := &walk{job: job, a: a, b: b, comparer: New()}
	w.result.SizeA, w.result.SizeB = a.size, b.size
	w.result.ObjectsTotal = a.layout.ObjectCount(max(a.size, b.size))
	if err := w.run(ctx); err != nil {
		return Result{}, err
	}
	for _, side := range [2]Side{job.A, job.B} {
		if err := stillThere(ctx, side); err != nil {
			return Result{}, err
		}
	}
	w.result.ChecksumBytes, w.result.DataBytes = w.comparer.Moved()
	slices.SortFunc(w.result.Differences, func(x, y Difference) int { return cmp.Compare(x.Object, y.Object) })
	return w.result, nil
}

// stillThere fails if the side's snapshot was removed since its header was read.
func stillThere(ctx context.Context, side Side) error {
	if side.Snap == ceph.NoSnap {
		return nil
	}
	was := side.Header.SnapshotByID(side.Snap)
	now, err := rados.Ask(ctx, side.IO, rbd.HeaderObject(side.Header.ID), rbd.SnapshotGet(side.Snap))
	if err == nil && now.Namespace.Kind() != was.Namespace.Kind() {
		err = fmt.Errorf("it went to the trash")
	}
	if err != nil {
		return &ChangedError{Object: rbd.HeaderObject(side.Header.ID), Snap: side.Snap, Err: err}
	}
	return nil
}

// walk is a comparison under way.
type walk struct {
	job      Job
	a, b     *state
	comparer *Comparer
	next     atomic.Uint64
	done     atomic.Uint64

	mu     sync.Mutex
	result Result
}

func (w *walk) run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for range w.job.Objects {
		group.Go(func() error {
			for {
				n := w.next.Add(1) - 1
				if n >= w.result.ObjectsTotal {
					return nil
				}
				if err := ctx.Err(); err != nil {
					return err
				}
				if err := w.object(ctx, image.ObjectNumber(n)); err != nil {
					return err
				}
				done := w.done.Add(1)
				if w.job.Progress != nil {
					w.job.Progress(Progress{ObjectsDone: done, ObjectsTotal: w.result.ObjectsTotal})
				}
			}
		})
	}
	return group.Wait()
}

func (w *walk) object(ctx context.Context, n image.ObjectNumber) error {
	if w.a.absent(n) && w.b.absent(n) {
		return nil
	}
	var x, y Object
	group, groupCtx := errgroup.WithContext(ctx)
	group.Go(func() (err error) { x, err = w.a.find(groupCtx, n); return err })
	group.Go(func() (err error) { y, err = w.b.find(groupCtx, n); return err })
	if err := group.Wait(); err != nil {
		return err
	}
	extents, err := w.comparer.Objects(ctx, x, y)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if size := max(x.Size, y.Size); size > 0 {
		w.result.ObjectsCompared++
		w.result.BytesCompared += size
	}
	if len(extents) > 0 {
		w.result.ObjectsDiffering++
		if len(w.result.Differences) < MaxDifferences {
			w.result.Differences = append(w.result.Differences, Difference{Object: n, Extents: extents})
		}
		for _, e := range extents {
			w.result.BytesDiffering += e.Length
		}
	}
	return nil
}
