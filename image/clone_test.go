package image

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

var (
	cloneSeed  = flag.Uint64("clone-seed", 0, "the one seed of the random tests of clones (0: the usual ones)")
	cloneSeeds = flag.Uint64("clone-seeds", 40, "how many seeds the random tests of clones try")
)

// cloneModel is a clone in memory, and what it ought to hold.
type cloneModel struct {
	*memSite
	rng      *rand.Rand
	im       *Image
	life     mortal
	head     []byte
	snaps    map[string][]byte
	serial   int
	overlap  uint64 // of the head
	parents  []string
	parent   rbd.ParentSpec
	crashed  bool // object maps may know of more than there is
	attached bool
}

func newCloneModel(t *testing.T, seed uint64) *cloneModel {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 3))
	m := &cloneModel{memSite: newMemSite(t, nil, "rbd", "other"), rng: rng, snaps: make(map[string][]byte), attached: true}
	generations := 1 + rng.IntN(2)
	var want []byte
	var snap ceph.SnapID
	parent, parentPool := "", ""
	for g := range generations {
		spec := memSpec(fmt.Sprint("parent", g), 30000+rng.Uint64N(100000), uint8(12+rng.IntN(3)))
		pool := []string{"rbd", "other"}[rng.IntN(2)]
		if rng.IntN(2) == 0 {
			spec.StripeUnit, spec.StripeCount = 2048, 3
		}
		if parent != "" {
			spec.Size = uint64(len(want))
		}
		s := m.create(pool, spec)
		if parent == "" {
			want = make([]byte, spec.Size)
		} else {
			m.close(s)
			m.attach(pool, spec.ID, parentPool, parent, snap, 1+rng.IntN(2))
			s = m.memSite.open(m.pools[pool], spec.ID)
		}
		for range 4 { // with holes
			from := rng.Uint64N(spec.Size)
			b := randomBytes(rng, min(spec.Size-from, 1+rng.Uint64N(20000)))
			copy(want[from:], b)
			m.apply(s, IO{Kind: Write, Offset: from, Length: uint64(len(b)), Data: b})
		}
		snap = m.snap(s, "s")
		m.apply(s, IO{Kind: WriteSame, Length: spec.Size, Data: []byte("not the clone's")})
		m.close(s)
		m.parents = append(m.parents, pool+"/"+spec.ID)
		parent, parentPool = spec.ID, pool
	}
	spec := memSpec("child", uint64(len(want)), uint8(12+rng.IntN(3)))
	if rng.IntN(2) == 0 {
		spec.StripeUnit, spec.StripeCount = 1024, 2
	}
	if rng.IntN(2) == 0 {
		spec.Features &^= rbd.FeatureDeepFlatten
	}
	if rng.IntN(4) == 0 {
		spec.Features &^= rbd.FeatureObjectMap | rbd.FeatureFastDiff
	}
	m.close(m.create("rbd", spec))
	m.attach("rbd", "child", parentPool, parent, snap, 1+rng.IntN(2))
	m.head, m.overlap = want, uint64(len(want))
	m.reopen()
	m.parent = m.im.Header().Parent
	return m
}

func (m *cloneModel) reopen() {
	m.t.Helper()
	m.life = newMortal(m.io, 1<<40)
	m.im = m.memSite.open(m.life, "child")
}

// survive does something that may be killed half way, and does it again until it is
// done.
func (m *cloneModel) survive(what string, do func(ctx context.Context) error) {
	m.t.Helper()
	ctx := context.Background()
	if m.rng.IntN(3) > 0 {
		if err := do(ctx); err != nil {
			m.t.Fatalf("%s: %v", what, err)
		}
		return
	}
	for {
		m.life.left.Store(m.rng.Int64N(12))
		err := do(ctx)
		if err == nil {
			m.life.left.Store(1 << 40)
			return
		}
		if !errors.Is(err, errKilled) {
			m.t.Fatalf("%s: %v", what, err)
		}
		m.crashed = true
		m.check(m.im.Abandon(ctx))
		m.reopen()
		if m.rng.IntN(2) == 0 {
			m.life.left.Store(1 << 40)
			m.check(do(ctx))
			return
		}
	}
}

func (m *cloneModel) randomIO() IO {
	size := uint64(len(m.head))
	io := IO{
		Kind:   []Kind{Write, Write, Write, Discard, Discard, WriteSame}[m.rng.IntN(6)],
		Offset: m.rng.Uint64N(size),
		Length: 1 + m.rng.Uint64N([]uint64{512, 5000, 20000}[m.rng.IntN(3)]),
	}
	if m.rng.IntN(2) == 0 { // whole objects come up
		object := m.im.Header().Layout.ObjectSize()
		io.Offset &^= object - 1
		io.Length = (io.Length + object - 1) &^ (object - 1)
	}
	switch io.Kind {
	case Write:
		io.Data = randomBytes(m.rng, io.Length)
	case WriteSame:
		io.Data = randomBytes(m.rng, 1+m.rng.Uint64N(1000))
	case Discard:
		io.DiscardGranularity = []uint64{0, 0, 512, 4096, 1 << 22}[m.rng.IntN(5)]
	}
	return io
}

func (m *cloneModel) write() {
	var ios []IO
	for range 1 + m.rng.IntN(4) {
		ios = append(ios, m.randomIO())
	}
	applyPlainly(m.im.Header().Layout, m.head, ios)
	m.survive("write", func(ctx context.Context) error { _, err := m.im.Apply(ctx, ios); return err })
}

// compareAndWrite is not repeatable, so it is not killed.
func (m *cloneModel) compareAndWrite() {
	m.t.Helper()
	at := m.rng.Uint64N(uint64(len(m.head))) &^ 511
	b := m.head[at:min(at+512, uint64(len(m.head)))]
	io := IO{Kind: CompareAndWrite, Offset: at, Length: uint64(len(b)), Compare: slices.Clone(b), Data: randomBytes(m.rng, uint64(len(b)))}
	wrong := m.rng.IntN(2) == 0
	if wrong {
		io.Compare[len(b)-1] ^= 1
	}
	got, err := m.im.Apply(context.Background(), []IO{io})
	m.check(err)
	if want := (Mismatch{Offset: at + uint64(len(b)) - 1}); wrong && !slices.Equal(got, []Mismatch{want}) || !wrong && len(got) > 0 {
		m.t.Fatalf("compare and write at %d, to differ %v: %v", at, wrong, got)
	}
	if !wrong {
		copy(b, io.Data)
	}
}

func (m *cloneModel) anySnapshot() string {
	names := slices.Sorted(maps.Keys(m.snaps))
	if len(names) == 0 {
		return ""
	}
	return names[m.rng.IntN(len(names))]
}

func (m *cloneModel) resize() {
	size := m.rng.Uint64N(160000) + 1
	m.survive("resize", func(ctx context.Context) error { _, err := m.im.Resize(ctx, size); return err })
	m.head = append(slices.Clone(m.head[:min(size, uint64(len(m.head)))]), make([]byte, size-min(size, uint64(len(m.head))))...)
	m.overlap = min(m.overlap, size)
}

func (m *cloneModel) step() string {
	name := m.anySnapshot()
	switch n := m.rng.IntN(20); {
	case n < 8:
		m.write()
		return "write"
	case n < 10:
		m.compareAndWrite()
		return "compare and write"
	case n < 13:
		m.serial++
		name := fmt.Sprint("s", m.serial)
		m.survive("snapshot", func(ctx context.Context) error {
			_, _, err := m.im.SnapCreate(ctx, rbd.UserSnapshot{}, name)
			return err
		})
		m.snaps[name] = slices.Clone(m.head)
		return "create snapshot " + name
	case n < 15:
		m.resize()
		return "resize"
	case n < 17 && name != "":
		m.survive("rollback", func(ctx context.Context) error {
			_, err := m.im.SnapRollback(ctx, rbd.UserSnapshot{}, name)
			return err
		})
		m.head = slices.Clone(m.snaps[name])
		m.overlap = min(m.overlap, uint64(len(m.head)))
		return "roll back to " + name
	case n < 19 && name != "":
		m.survive("remove snapshot", func(ctx context.Context) error { _, err := m.im.SnapRemove(ctx, rbd.UserSnapshot{}, name); return err })
		delete(m.snaps, name)
		return "remove snapshot " + name
	case n == 19 && m.rng.IntN(3) == 0:
		m.flatten()
		return "flatten"
	}
	return "nothing"
}

func (m *cloneModel) flatten() {
	m.survive("flatten", func(ctx context.Context) error { _, err := m.im.Flatten(ctx, nil); return err })
	m.overlap, m.attached = 0, false
}

func (m *cloneModel) verify() {
	m.t.Helper()
	h := m.im.Header()
	if h.Overlap != m.overlap || h.Attached != m.attached {
		m.t.Errorf("overlap %d, attached %v; want %d, %v", h.Overlap, h.Attached, m.overlap, m.attached)
	}
	if got := m.read(m.io, "child", ceph.NoSnap); !bytes.Equal(got, m.head) {
		m.t.Errorf("head differs at %d (%d bytes, want %d)", firstDifference(got, m.head), len(got), len(m.head))
	}
	for name, want := range m.snaps {
		s := h.Snapshot(rbd.UserSnapshot{}, name)
		if got := m.read(m.io, "child", s.ID); !bytes.Equal(got, want) {
			m.t.Errorf("snapshot %s differs at %d (%d bytes, want %d)", name, firstDifference(got, want), len(got), len(want))
		}
	}
	m.verifyMaps(h)
	child := rbd.ChildSpec{Pool: m.io.Pool().ID, ImageID: "child"}
	list, err := rados.Ask(context.Background(), m.parentIO(), rbd.HeaderObject(m.parentID()), rbd.ChildrenList(m.parent.Snap))
	old, errOld := rados.Ask(context.Background(), m.io, rbd.ChildrenObject, rbd.GetChildren(m.parent))
	noted := err == nil && slices.Contains(list, child) || errOld == nil && slices.Contains(old, "child")
	if want := h.HasParent(); noted != want {
		m.t.Errorf("noted as a child: %v, want %v (%v, %v)", noted, want, err, errOld)
	}
}

func (m *cloneModel) parentID() string {
	_, id, _ := strings.Cut(m.parents[len(m.parents)-1], "/")
	return id
}

func (m *cloneModel) parentIO() rados.IOContext {
	pool, _, _ := strings.Cut(m.parents[len(m.parents)-1], "/")
	return m.pools[pool]
}

// verifyMaps compares the object maps with the objects, as "rbd object-map check" does
// (src/librbd/operation/ObjectMapIterate.cc and object_map/...). What a map may say
// although it is not so: that an object has changed; and, where something was
// interrupted, that one exists.
func (m *cloneModel) verifyMaps(h *Header) {
	m.t.Helper()
	if !h.Features.Has(rbd.FeatureObjectMap) {
		return
	}
	if h.Flags != 0 {
		m.t.Errorf("flags %v", h.Flags)
	}
	for _, id := range states(h) {
		om, err := loadObjectMap(context.Background(), m.io, rbd.ObjectMapObject("child", id))
		m.check(err)
		for n := range h.Layout.ObjectCount(sizeAt(h, id)) {
			want, got := m.objectState(h, ObjectNumber(n), id), om.At(n)
			fine := got == want || got == rbd.ObjectExists && want == rbd.ObjectExistsClean || m.crashed && got != rbd.ObjectNonexistent && want == rbd.ObjectNonexistent
			if !fine {
				m.t.Errorf("object map of snapshot %d: object %d is %v, want %v", id, n, got, want)
			}
		}
	}
}

func (m *cloneModel) objectState(h *Header, n ObjectNumber, id ceph.SnapID) rbd.ObjectState {
	var op rados.ReadOp
	list := op.ListSnaps()
	err := m.io.Read(context.Background(), h.Layout.ObjectName(n), &op)
	if errors.Is(err, syscall.ENOENT) {
		return rbd.ObjectNonexistent
	}
	m.check(err)
	valid := func(id ceph.SnapID) ceph.SnapID { // the next snapshot that exists
		next := ceph.NoSnap
		for _, s := range h.Snapshots {
			if s.ID >= id {
				next = min(next, s.ID)
			}
		}
		return next
	}
	for _, c := range list.Clones {
		from, to := valid(list.Seq+1), ceph.NoSnap
		if c.ID != ceph.NoSnap {
			from, to = valid(c.Snaps[0]), c.Snaps[len(c.Snaps)-1]
		}
		switch {
		case id < from:
			return rbd.ObjectNonexistent
		case id == from:
			return rbd.ObjectExists
		case id <= to:
			return rbd.ObjectExistsClean
		}
	}
	return rbd.ObjectNonexistent
}

// TestCloneRandom does anything to clones, with kills, and compares all bytes, object
// maps and relations after each step. At the end the clone is flattened, its parents
// are spoilt, and it must hold what it held.
func TestCloneRandom(t *testing.T) {
	first, n := uint64(1), *cloneSeeds
	if *cloneSeed != 0 {
		first, n = *cloneSeed, 1
	}
	for seed := first; seed < first+n; seed++ {
		t.Run(fmt.Sprint("-clone-seed=", seed), func(t *testing.T) {
			m := newCloneModel(t, seed)
			m.verify()
			var story []string
			for range 40 {
				story = append(story, m.step())
				if m.verify(); t.Failed() {
					t.Fatalf("after %q", story)
				}
			}
			if m.attached {
				m.flatten()
			}
			m.verify()
			if m.im.Header().HasParent() {
				for name := range m.snaps {
					m.survive("remove", func(ctx context.Context) error { _, err := m.im.SnapRemove(ctx, rbd.UserSnapshot{}, name); return err })
					delete(m.snaps, name)
				}
			}
			if m.verify(); m.im.Header().HasParent() {
				t.Error("flattened, and still a clone")
			}
			ctx := context.Background()
			for _, p := range m.parents {
				pool, id, _ := strings.Cut(p, "/")
				m.check(m.pools[pool].Write(ctx, rbd.HeaderObject(id), new(rados.WriteOp).Remove()))
			}
			h := m.im.Header()
			if got := m.read(m.io, "child", ceph.NoSnap); !bytes.Equal(got, m.head) {
				t.Errorf("head without parent differs at %d", firstDifference(got, m.head))
			}
			for name, want := range m.snaps {
				if got := m.read(m.io, "child", h.Snapshot(rbd.UserSnapshot{}, name).ID); !bytes.Equal(got, want) {
					t.Errorf("snapshot %s without parent differs at %d", name, firstDifference(got, want))
				}
			}
			if t.Failed() {
				t.Logf("story: %q", story)
			}
		})
	}
}
