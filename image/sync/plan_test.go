package imagesync

import (
	"bytes"
	"cmp"
	"context"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/rados"
)

// world is one remote object with the snapshots of its image, and the local object
// that is to become like it.
type world struct {
	t      *rapid.T
	remote *modelObject
	local  *modelObject
	snaps  []ceph.SnapID // the remote image's, ascending
	next   ceph.SnapID
	seqs   map[ceph.SnapID]ceph.SnapID // remote to local
	ids    []ceph.SnapID               // local snapshots, ascending
}

const modelSize = 12 * zeroBlock

func (w *world) context() ceph.SnapContext {
	c := ceph.SnapContext{Seq: w.next - 1}
	for _, s := range slices.Backward(w.snaps) {
		c.Snaps = append(c.Snaps, s)
	}
	return c
}

// work does random things to the remote object and its image's snapshots.
func (w *world) work(steps int) {
	for range steps {
		at := rapid.Uint64Range(0, modelSize-1).Draw(w.t, "at")
		n := rapid.Uint64Range(1, min(modelSize-at, 3*zeroBlock)).Draw(w.t, "length")
		op := &rados.WriteOp{SnapContext: w.context()}
		switch rapid.SampledFrom([]string{"write", "write", "write", "zeros", "zero", "truncate", "extend", "remove", "create", "snap", "snap", "unsnap"}).Draw(w.t, "do") {
		case "write":
			op.Write(at, bytes.Repeat([]byte{rapid.Byte().Draw(w.t, "byte")}, int(n)))
		case "zeros":
			op.Write(at, make([]byte, n))
		case "zero":
			op.Zero(at, n)
		case "truncate", "extend":
			op.Truncate(at)
		case "remove":
			op.Remove()
		case "create":
			op.Create(false)
		case "snap":
			w.snaps = append(w.snaps, w.next)
			w.next++
			continue
		case "unsnap":
			if len(w.snaps) > 1 {
				i := rapid.IntRange(0, len(w.snaps)-2).Draw(w.t, "which")
				w.remote.trim(w.snaps[i])
				w.snaps = slices.Delete(w.snaps, i, i+1)
			}
			continue
		}
		_ = w.remote.write(op) // ENOENT: nothing to remove
	}
}

// versions maps the snapshots to local ones, making those that are missing.
func (w *world) versions() []version {
	for _, s := range w.snaps {
		if w.seqs[s] == 0 {
			id := s + 1000
			w.seqs[s] = id
			w.ids = append(w.ids, id)
		}
	}
	slices.Sort(w.ids)
	var out []version
	for r, l := range w.seqs {
		v := version{remote: r, local: l, objects: 1, gone: !slices.Contains(w.snaps, r)}
		for _, id := range slices.Backward(w.ids) {
			if id < l {
				v.context.Snaps = append(v.context.Snaps, id)
			}
		}
		if len(v.context.Snaps) > 0 {
			v.context.Seq = v.context.Snaps[0]
		}
		out = append(out, v)
	}
	slices.SortFunc(out, func(a, b version) int { return cmp.Compare(a.remote, b.remote) })
	return out
}

// copy carries out the plan's first steps; true if all were done.
func (w *world) copy(versions []version, clean bool, steps int, holes int) (objectPlan, []bool, bool) {
	begin := beginning{}
	if clean {
		begin.before = absent
	}
	plan := planObject(0, w.remote.history(), versions, begin)
	written := make([]bool, len(versions))
	for _, s := range plan.steps {
		if steps == 0 {
			return plan, written, false
		}
		steps--
		var reads []*rados.ReadStep
		if len(s.ranges) > 0 {
			var op rados.ReadOp
			reads = s.read(&op)
			if err := (modelIO{object: w.remote, holes: holes}).Read(context.Background(), "", &op); err != nil {
				w.t.Fatalf("read at %d: %v", s.readAt, err)
			}
		}
		pieces, err := s.pieces(reads)
		if err != nil {
			w.t.Fatal(err)
		}
		op := s.write(pieces, versions[s.version].context, modelSize)
		if op == nil {
			continue
		}
		written[s.version] = true
		if err := w.local.write(op); err != nil && !s.remove {
			w.t.Fatal(err)
		}
	}
	return plan, written, true
}

// Whatever an object has been through, the copy gives each snapshot and the head the
// same bytes, also over what interrupted copies have left.
func TestCopyReproducesHistory(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, remote: &modelObject{}, local: &modelObject{}, next: 1, seqs: map[ceph.SnapID]ceph.SnapID{}}
		holes := rapid.SampledFrom([]int{512, zeroBlock, modelSize}).Draw(t, "holes")
		w.work(rapid.IntRange(0, 30).Draw(t, "steps"))
		clean := true
		for range rapid.IntRange(0, 3).Draw(t, "interruptions") {
			w.snaps = append(w.snaps, w.next) // the sync point
			w.next++
			versions := w.versions()
			w.copy(versions, clean, rapid.IntRange(0, 6).Draw(t, "until"), holes)
			clean = false
			if rapid.Bool().Draw(t, "the sync point is lost") {
				w.remote.trim(w.snaps[len(w.snaps)-1])
				w.snaps = w.snaps[:len(w.snaps)-1]
			}
			w.work(rapid.IntRange(0, 10).Draw(t, "meanwhile"))
		}
		w.snaps = append(w.snaps, w.next)
		w.next++
		versions := w.versions()
		plan, _, done := w.copy(versions, clean, 1<<30, holes)
		if !done {
			t.Fatal("not done")
		}
		for i, v := range versions {
			if v.gone {
				continue
			}
			want, exists := w.remote.at(v.remote)
			got, there := w.local.at(v.local)
			if exists != there || !bytes.Equal(want, got) {
				t.Fatalf("snapshot %d: remote has %v (%d bytes), local %v (%d bytes), equal %v", v.remote, exists, len(want), there, len(got), bytes.Equal(want, got))
			}
			if plan.exists[i] != exists {
				t.Fatalf("snapshot %d: the plan says %v, it is %v", v.remote, plan.exists[i], exists)
			}
		}
		last := versions[len(versions)-1]
		want, _ := w.remote.at(last.remote)
		if !bytes.Equal(w.local.head, want) {
			t.Fatal("the local head is not as the sync point")
		}
	})
}

// A copy into an empty image makes a clone exactly where it says that it has written:
// that is what fast-diff's states promise.
func TestWrittenVersionsHaveTheirOwnClone(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := &world{t: t, remote: &modelObject{}, local: &modelObject{}, next: 1, seqs: map[ceph.SnapID]ceph.SnapID{}}
		w.work(rapid.IntRange(0, 40).Draw(t, "steps"))
		w.snaps = append(w.snaps, w.next)
		w.next++
		versions := w.versions()
		plan, written, _ := w.copy(versions, true, 1<<30, zeroBlock)
		h := w.local.history()
		for i, v := range versions {
			if !plan.exists[i] {
				continue
			}
			first := i == 0 || !plan.exists[i-1] || h.at(v.local) != h.at(versions[i-1].local)
			if first != written[i] {
				t.Fatalf("version %d: written %v, but is the first of its clone: %v\n%+v", i, written[i], first, h)
			}
		}
	})
}
