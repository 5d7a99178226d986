//go:build live

package mem

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/rados"
)

// TestLiveObjects compares reads and writes of objects, with snapshots.
func TestLiveObjects(t *testing.T) {
	real, fake := worlds(t)
	var snaps ceph.SnapContext
	play(t, real, fake, 2000, func(d dice) action {
		if d.IntN(40) == 0 && len(snaps.Snaps) < 12 {
			id := newSnap(t, real, fake)
			snaps = ceph.SnapContext{Seq: id, Snaps: append([]ceph.SnapID{id}, snaps.Snaps...)}
		}
		object := d.pick("o", "p", "q")
		if d.IntN(2) == 0 {
			return readAction(d, object, snaps)
		}
		op := rados.WriteOp{SnapContext: snaps}
		if n := len(snaps.Snaps); n > 0 && d.IntN(12) == 0 {
			// Alone, as it is used: with others, an OSD does what is hard to tell.
			op.Rollback(snaps.Snaps[d.IntN(n)])
		} else {
			for range 1 + d.IntN(3) {
				if writeStep(d, &op); op.Steps[len(op.Steps)-1].Kind == rados.WriteRemove {
					break // what follows it in one operation sees remains
				}
			}
		}
		return action{fmt.Sprintf("%s: write %v %s", object, op.SnapContext, stepsText(op.Steps)), func(ctx context.Context, w world) (any, error) {
			return nil, w.io.Write(ctx, object, &rados.WriteOp{SnapContext: op.SnapContext, Steps: op.Steps})
		}}
	})
}

// TestLiveRemovedObjectRemembersItsOmap is TestRemovedObjectRemembersItsOmap on an OSD.
func TestLiveRemovedObjectRemembersItsOmap(t *testing.T) {
	real, fake := worlds(t)
	var history []string
	one, two, three := newSnap(t, real, fake), newSnap(t, real, fake), newSnap(t, real, fake)
	for i, op := range omapOfARemovedObject(one, two, three) {
		compare(t, real, fake, &history, action{fmt.Sprintf("o: step %d", i), func(ctx context.Context, w world) (any, error) {
			return nil, w.io.Write(ctx, "o", op)
		}})
		compare(t, real, fake, &history, action{"o: list", func(ctx context.Context, w world) (any, error) {
			read := &rados.ReadOp{}
			read.ListSnaps()
			err := w.io.Read(ctx, "o", read)
			return normal(read.Steps), err
		}})
	}
}

func writeStep(d dice, op *rados.WriteOp) {
	// Extents around the pages' ends.
	offset, length := uint64(d.IntN(3))*4096+uint64(d.IntN(9)), 1+d.IntN(9)
	name := d.pick("x", "y", "z")
	switch d.IntN(23) {
	case 0:
		op.Create(d.IntN(2) == 0)
	case 1:
		op.AssertExists()
	case 2:
		op.CmpExt(offset, d.bytes(2))
	case 3:
		op.CmpXattr(name, d.bytes(1))
	case 4, 5, 6, 7:
		op.Write(offset, d.bytes(length))
	case 8:
		op.WriteFull(d.bytes(length))
	case 9:
		op.WriteSame(offset, 8, d.bytes(2))
	case 10:
		op.Append(d.bytes(length))
	case 11, 12:
		op.Zero(offset, uint64(length))
	case 13:
		op.Truncate(offset)
	case 14:
		op.Remove()
	case 15:
		op.SetXattr(name, d.bytes(1))
	case 16:
		op.RemoveXattr(name)
	case 17, 18:
		op.SetOmap(map[string][]byte{name: d.bytes(2), d.pick("k1", "k2"): d.bytes(1)})
	case 19:
		op.RemoveOmap(name, "k1")
	case 20:
		op.ClearOmap()
	case 21:
		op.AllocHint(4096, 4096)
	case 22:
		op.CmpOmap(name, d.bytes(2))
	}
}

func readAction(d dice, object string, snaps ceph.SnapContext) action {
	snap := ceph.SnapID(0)
	if n := len(snaps.Snaps); n > 0 && d.IntN(2) == 0 {
		snap = snaps.Snaps[d.IntN(n)]
	}
	offset := uint64(d.IntN(3))*4096 + uint64(d.IntN(9))
	after, name := d.pick("", "k1", "x"), d.pick("x", "y")
	value, limit := d.bytes(1), uint64(1+d.IntN(3))
	kind := d.IntN(5)
	sum := checksumStep(d)
	return action{fmt.Sprintf("%s: read %d at %d", object, kind, snap), func(ctx context.Context, w world) (any, error) {
		op := rados.ReadOp{Snap: snap}
		switch kind {
		case 0:
			op.ListSnaps()
			op.Snap = 0
		case 1:
			op.CmpXattr(name, value)
			op.Read(offset, 100)
		case 2:
			op.ListOmap(after, "", limit)
			op.GetOmap(name, "k2", "none")
			op.Xattrs()
		case 3:
			op.Read(0, 1<<20)
			op.Stat()
			op.SparseRead(offset, 5000)
		case 4:
			op.Checksum(sum.Checksum, sum.Seed, sum.Offset, sum.Length, sum.Chunk)
		}
		err := w.io.Read(ctx, object, &op)
		if kind == 0 && (errors.Is(err, syscall.ENOENT) || len(op.Steps[0].Clones) == 0) {
			// An OSD may remember an object that one operation made and removed.
			return nil, nil
		}
		return normal(op.Steps), err
	}}
}

// checksumStep asks for checksums of ranges in, at, over and behind the object's end.
func checksumStep(d dice) rados.ReadStep {
	s := rados.ReadStep{Checksum: rados.ChecksumType(d.IntN(3)), Seed: d.Uint64(), Chunk: []uint64{0, 1, 3, 4, 100, 4096}[d.IntN(6)]}
	s.Offset = uint64(d.IntN(3))*4096 + uint64(d.IntN(9))
	if d.IntN(2) == 0 {
		s.Offset = 0
	}
	s.Length = max(s.Chunk, 1) * uint64(d.IntN(6))
	if d.IntN(8) == 0 {
		s.Length++
	}
	return s
}

// normal is the answer without what may differ: how much of a sparse read is told to
// be holes, and the order in which they come.
func normal(steps []*rados.ReadStep) []rados.ReadStep {
	var out []rados.ReadStep
	for _, s := range steps {
		c := *s
		if c.Kind == rados.ReadSparse {
			dense := map[uint64]byte{}
			n := uint64(0)
			for _, e := range c.Extents {
				for i := range e.Length {
					if b := c.Data[n+i]; b != 0 {
						dense[e.Offset+i] = b
					}
				}
				n += e.Length
			}
			c.Data, c.Extents = nil, nil
			c.Name = fmt.Sprint(dense)
		}
		if len(c.Data) == 0 {
			c.Data = nil
		}
		out = append(out, c)
	}
	return out
}

// stepsText is short, for the history.
func stepsText(steps []rados.WriteStep) string {
	var out []string
	for _, s := range steps {
		out = append(out, fmt.Sprintf("%d(%d~%d %s %q %q %q)", s.Kind, s.Offset, s.Length, s.Name, s.Data, s.Pairs, s.Keys))
	}
	return strings.Join(out, " ")
}
