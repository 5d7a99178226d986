package compare

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"golang.org/x/sync/errgroup"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Object is a state of a data object. The state must not change while it is compared:
// it is a snapshot's, or nobody else may write the head.
type Object struct {
	IO   rados.IOContext
	Name string
	Snap ceph.SnapID // 0 or ceph.NoSnap: the head
	Size uint64      // bytes that count; 0 if it does not exist
}

// ChangedError says that an object was not what had been found out about it: its
// snapshot was removed, or somebody wrote it.
type ChangedError struct {
	Object string
	Snap   ceph.SnapID
	Err    error
}

func (e *ChangedError) Error() string {
	return fmt.Sprintf("object %s at snapshot %d changed while it was compared: %v", e.Object, e.Snap, e.Err)
}

// Unwrap is what the cluster said.
func (e *ChangedError) Unwrap() error { return e.Err }

// Objects compares two states and gives the extents, ascending and not touching, in
// which they differ: multiples of Fine, but for the last end. What one of them lacks
// counts as zeros.
func (c *Comparer) Objects(ctx context.Context, a, b Object) ([]rados.Extent, error) {
	size := max(a.Size, b.Size)
	if size == 0 {
		return nil, nil
	}
	ranges := []rados.Extent{{Length: size}}
	if size > Coarse {
		var err error
		if ranges, err = c.level(ctx, a, b, ranges, Coarse); err != nil || len(ranges) == 0 {
			return nil, err
		}
	}
	ranges, err := c.level(ctx, a, b, ranges, Fine)
	if err != nil {
		return nil, err
	}
	if n := len(ranges); n > 0 {
		last := &ranges[n-1]
		last.Length = min(last.Offset+last.Length, size) - last.Offset
	}
	return ranges, nil
}

// level compares the chunks of ranges and gives those that differ, or may differ: a
// coarse chunk in which an object ends is left to the next level. Ranges begin with a
// chunk; they end with one, or with the larger object.
func (c *Comparer) level(ctx context.Context, a, b Object, ranges []rados.Extent, chunk uint64) ([]rados.Extent, error) {
	var sums [2][]sum
	group, groupCtx := errgroup.WithContext(ctx)
	for i, o := range [2]Object{a, b} {
		q := question{object: o, chunk: chunk, sameEnd: a.Size == b.Size}
		group.Go(func() (err error) {
			sums[i], err = c.ask(groupCtx, q, ranges)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, err
	}
	var out []rados.Extent
	i := 0
	for _, r := range ranges {
		for at := r.Offset; at < r.Offset+r.Length; at += chunk {
			if x, y := sums[0][i], sums[1][i]; !x.known || !y.known || x.value != y.value {
				out = join(out, rados.Extent{Offset: at, Length: chunk})
			}
			i++
		}
	}
	return out, nil
}

// join appends an extent that lies behind the others.
func join(to []rados.Extent, e rados.Extent) []rados.Extent {
	if n := len(to); n > 0 && to[n-1].Offset+to[n-1].Length == e.Offset {
		to[n-1].Length += e.Length
		return to
	}
	return append(to, e)
}

// sum is a chunk's checksum, as far as it is known.
type sum struct {
	value uint64
	known bool
}

// question is what one side is asked at one level.
type question struct {
	object  Object
	chunk   uint64
	sameEnd bool // the other object ends at the same byte
}

// tail is the chunk in which the object ends, if that is not at a chunk's end.
func (q question) tail() (from uint64, ok bool) {
	from = q.object.Size - q.object.Size%q.chunk
	return from, from != q.object.Size
}

// ask asks for the checksums of all chunks of the ranges, in order.
func (c *Comparer) ask(ctx context.Context, q question, ranges []rados.Extent) ([]sum, error) {
	var op rados.ReadOp
	op.Snap = q.object.Snap
	tailAt, hasTail := q.tail()
	var whole []*rados.ReadStep // of the ranges that have whole chunks
	var tail *rados.ReadStep
	for _, r := range ranges {
		if r.Offset < tailAt {
			length := min((r.Length+q.chunk-1)/q.chunk*q.chunk, tailAt-r.Offset)
			whole = append(whole, op.Checksum(rados.XXHash64, c.seed, r.Offset, length, q.chunk))
		}
		if hasTail && q.chunk == Fine && r.Offset <= tailAt && tailAt < r.Offset+r.Length {
			rest := q.object.Size - tailAt
			if q.sameEnd {
				tail = op.Checksum(rados.XXHash64, c.seed, tailAt, rest, 0)
			} else {
				tail = op.Read(tailAt, rest)
			}
		}
	}
	if len(op.Steps) > 0 {
		err := q.object.IO.Read(ctx, q.object.Name, &op)
		if errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EINVAL) {
			return nil, &ChangedError{Object: q.object.Name, Snap: q.object.Snap, Err: err}
		}
		if err != nil {
			return nil, err
		}
	}
	return c.answers(q, ranges, whole, tail)
}

// answers puts what the OSD has said in the order of the ranges' chunks.
func (c *Comparer) answers(q question, ranges []rados.Extent, whole []*rados.ReadStep, tail *rados.ReadStep) ([]sum, error) {
	tailAt, hasTail := q.tail()
	var out []sum
	for _, r := range ranges {
		var sums []uint64
		if r.Offset < tailAt {
			step := whole[0]
			whole = whole[1:]
			var err error
			if sums, err = c.take(q, step, step.Length/q.chunk); err != nil {
				return nil, err
			}
		}
		for at := r.Offset; at < r.Offset+r.Length; at += q.chunk {
			switch {
			case at < tailAt:
				out = append(out, sum{value: sums[0], known: true})
				sums = sums[1:]
			case at > tailAt || !hasTail:
				out = append(out, sum{value: c.zero(q.chunk), known: true})
			case tail == nil:
				out = append(out, sum{})
			default:
				s, err := c.takeTail(q, tail)
				if err != nil {
					return nil, err
				}
				out = append(out, s)
			}
		}
	}
	return out, nil
}

// take gives the n checksums that a step must have brought.
func (c *Comparer) take(q question, step *rados.ReadStep, n uint64) ([]uint64, error) {
	sums, err := step.Checksums()
	if err != nil {
		return nil, fmt.Errorf("object %s: %w", q.object.Name, err)
	}
	c.checksums.Add(uint64(len(step.Data)))
	if uint64(len(sums)) != n {
		return nil, &ChangedError{Object: q.object.Name, Snap: q.object.Snap,
			Err: fmt.Errorf("%d checksums at %d instead of %d: %w", len(sums), step.Offset, n, syscall.EIO)}
	}
	return sums, nil
}

// takeTail gives the checksum of the chunk in which the object ends.
func (c *Comparer) takeTail(q question, step *rados.ReadStep) (sum, error) {
	if q.sameEnd {
		sums, err := c.take(q, step, 1)
		if err != nil {
			return sum{}, err
		}
		return sum{value: sums[0], known: true}, nil
	}
	c.data.Add(uint64(len(step.Data)))
	if uint64(len(step.Data)) != step.Length {
		return sum{}, &ChangedError{Object: q.object.Name, Snap: q.object.Snap,
			Err: fmt.Errorf("%d bytes at %d instead of %d: %w", len(step.Data), step.Offset, step.Length, syscall.EIO)}
	}
	padded := make([]byte, q.chunk)
	copy(padded, step.Data)
	return sum{value: c.sum(padded), known: true}, nil
}
