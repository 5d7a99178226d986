//go:build live

package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
)

// model is what an image ought to hold.
type model struct {
	f         *fixture
	t         *testing.T
	rng       *rand.Rand
	spec      CreateSpec
	im        *Image
	head      []byte
	snapshots map[string][]byte
	protected map[string]bool
	metadata  map[string]string
	serial    int
}

// newSeed is random unless WARDEN_TEST_SEED is set; it is printed on failure.
func newSeed(t *testing.T) uint64 {
	seed := rand.Uint64()
	if s := os.Getenv("WARDEN_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("WARDEN_TEST_SEED=%d", seed)
	return seed
}

func (m *model) ctx() context.Context { return within(m.t, time.Minute) }

func (m *model) must(what string, out Outcome, err error, want Outcome) {
	m.t.Helper()
	if err != nil || out != want {
		m.t.Fatalf("%s: %v, %v; want %v", what, out, err, want)
	}
}

func (m *model) randomIO() IO {
	size := uint64(len(m.head))
	io := IO{
		Kind:   []Kind{Write, Write, Write, Discard, Discard, WriteSame, CompareAndWrite}[m.rng.IntN(7)],
		Offset: m.rng.Uint64N(size),
		Length: 1 + m.rng.Uint64N([]uint64{512, 5000, 200000}[m.rng.IntN(3)]),
	}
	switch {
	case m.rng.IntN(3) == 0: // whole objects come up
		io.Offset &^= 1<<m.spec.Order - 1
		io.Length = (io.Length + 1<<m.spec.Order - 1) &^ (1<<m.spec.Order - 1)
	case m.rng.IntN(2) == 0:
		io.Offset &^= 511
		io.Length = (io.Length + 511) &^ 511
	}
	random := func(n uint64) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(m.rng.Uint32())
		}
		return b
	}
	switch io.Kind {
	case Write:
		io.Data = random(io.Length)
	case WriteSame:
		io.Data = random(1 + m.rng.Uint64N(1000))
	case Discard:
		io.DiscardGranularity = []uint64{0, 512, 4096, 65536, 1 << 22}[m.rng.IntN(5)]
	case CompareAndWrite:
		io.Offset &^= 511
		io.Length = 512
		io.Data = random(512)
		io.Compare = make([]byte, 512)
		if io.Offset < size {
			copy(io.Compare, m.head[io.Offset:])
		}
		if m.rng.IntN(3) == 0 {
			io.Compare[m.rng.IntN(512)] ^= 1
		}
	}
	return io
}

// apply applies a batch to both.
func (m *model) apply() {
	m.t.Helper()
	var ios []IO
	var want []Mismatch
	for i := range 1 + m.rng.IntN(20) {
		io := m.randomIO()
		ios = append(ios, io)
		if io.Kind != CompareAndWrite {
			applyPlainly(m.im.Header().Layout, m.head, []IO{io})
			continue
		}
		io, ok := io.clip(uint64(len(m.head)))
		if !ok {
			continue
		}
		at := m.head[io.Offset:][:io.Length]
		if differs := firstDifference(at, io.Compare); differs < len(at) {
			want = append(want, Mismatch{Index: i, Offset: io.Offset + uint64(differs)})
		} else {
			copy(at, io.Data)
		}
	}
	got, err := m.im.Apply(m.ctx(), ios)
	if err != nil {
		m.t.Fatal(err)
	}
	if !slices.Equal(got, want) {
		m.t.Fatalf("mismatches %v, want %v", got, want)
	}
}

func (m *model) name() string {
	m.serial++
	return fmt.Sprintf("s%d", m.serial)
}

func (m *model) anySnapshot() string {
	names := slices.Sorted(maps.Keys(m.snapshots))
	if len(names) == 0 {
		return ""
	}
	return names[m.rng.IntN(len(names))]
}

func resized(b []byte, size uint64) []byte {
	out := make([]byte, size)
	copy(out, b)
	return out
}

// operate does one random operation to both, and then again: it must find that it
// is done.
func (m *model) operate() {
	m.t.Helper()
	s := m.anySnapshot()
	choice := m.rng.IntN(9)
	m.t.Logf("operation %d on snapshot %q, serial %d", choice, s, m.serial)
	switch choice {
	case 0, 1, 2:
		name := m.name()
		id, out, err := m.im.SnapCreate(m.ctx(), nil, name)
		m.must("create snapshot", out, err, Done)
		again, out, err := m.im.SnapCreate(m.ctx(), nil, name)
		m.must("create snapshot again", out, err, AlreadyDone)
		if id != again || id == 0 {
			m.t.Fatalf("snapshot %d, then %d", id, again)
		}
		m.snapshots[name] = slices.Clone(m.head)
	case 3:
		if s == "" || m.protected[s] {
			return
		}
		out, err := m.im.SnapRemove(m.ctx(), rbd.UserSnapshot{}, s)
		m.must("remove snapshot", out, err, Done)
		out, err = m.im.SnapRemove(m.ctx(), rbd.UserSnapshot{}, s)
		m.must("remove snapshot again", out, err, AlreadyDone)
		delete(m.snapshots, s)
	case 4:
		size := m.rng.Uint64N(4<<20) + 1
		if size == uint64(len(m.head)) {
			return
		}
		out, err := m.im.Resize(m.ctx(), size)
		m.must("resize", out, err, Done)
		out, err = m.im.Resize(m.ctx(), size)
		m.must("resize again", out, err, AlreadyDone)
		m.head = resized(m.head, size)
	case 5:
		if s == "" {
			return
		}
		to := m.name()
		out, err := m.im.SnapRename(m.ctx(), s, to)
		m.must("rename snapshot", out, err, Done)
		out, err = m.im.SnapRename(m.ctx(), s, to)
		m.must("rename snapshot again", out, err, AlreadyDone)
		m.snapshots[to], m.protected[to] = m.snapshots[s], m.protected[s]
		delete(m.snapshots, s)
		delete(m.protected, s)
	case 6:
		if s == "" {
			return
		}
		change := m.im.SnapProtect
		if m.protected[s] {
			change = m.im.SnapUnprotect
		}
		out, err := change(m.ctx(), nil, s)
		m.must("protection", out, err, Done)
		out, err = change(m.ctx(), nil, s)
		m.must("protection again", out, err, AlreadyDone)
		m.protected[s] = !m.protected[s]
	case 7:
		if s == "" {
			return
		}
		out, err := m.im.SnapRollback(m.ctx(), nil, s)
		m.must("roll back", out, err, Done)
		m.head = slices.Clone(m.snapshots[s])
	case 8:
		key, value := fmt.Sprintf("key%d", m.rng.IntN(3)), fmt.Sprint(m.rng.Uint32())
		out, err := m.im.MetadataSet(m.ctx(), key, []byte(value))
		m.must("set metadata", out, err, Done)
		m.metadata[key] = value
	}
}

// verify compares everything that rbd tells with the model.
func (m *model) verify() {
	m.t.Helper()
	f, image := m.f, livePool+"/"+m.spec.Name
	if got := f.export(m.spec.Name); !bytes.Equal(got, m.head) {
		m.t.Errorf("head differs at byte %d of %d (%d)", firstDifference(got, m.head), len(m.head), len(got))
	}
	for name, want := range m.snapshots {
		if got := f.export(m.spec.Name + "@" + name); !bytes.Equal(got, want) {
			m.t.Errorf("snapshot %s differs at byte %d of %d (%d)", name, firstDifference(got, want), len(want), len(got))
		}
	}
	var list []struct {
		Name      string `json:"name"`
		Size      int    `json:"size"`
		Protected string `json:"protected"`
		Namespace struct {
			Type string `json:"type"`
		} `json:"namespace"`
	}
	if err := json.Unmarshal([]byte(f.rbd("snap", "ls", "--all", "--format", "json", image)), &list); err != nil {
		m.t.Fatal(err)
	}
	if len(list) != len(m.snapshots) {
		m.t.Errorf("%d snapshots, want %d: %+v", len(list), len(m.snapshots), list)
	}
	for _, s := range list {
		if s.Namespace.Type != "user" || s.Size != len(m.snapshots[s.Name]) || (s.Protected == "true") != m.protected[s.Name] {
			m.t.Errorf("snapshot %+v, want size %d, protected %v", s, len(m.snapshots[s.Name]), m.protected[s.Name])
		}
	}
	var metadata map[string]string
	if out := f.rbd("image-meta", "ls", "--format", "json", image); len(m.metadata) > 0 {
		if err := json.Unmarshal([]byte(out), &metadata); err != nil {
			m.t.Fatal(err)
		}
	}
	for k, v := range m.metadata {
		if metadata[k] != v {
			m.t.Errorf("metadata %s is %q, want %q", k, metadata[k], v)
		}
	}
	m.compareDiffs(image)
	f.checkObjectMaps(m.spec.Name, slices.Collect(maps.Keys(m.snapshots))...)
}

// compareDiffs compares, between neighbouring snapshots, what fast-diff says from
// the object maps with what the objects' clones say: fast-diff may not miss an
// object.
func (m *model) compareDiffs(image string) {
	m.t.Helper()
	type extent struct {
		Offset uint64 `json:"offset"`
		Length uint64 `json:"length"`
	}
	diff := func(args ...string) (out []extent) {
		if err := json.Unmarshal([]byte(m.f.rbd(append([]string{"diff", "--format", "json"}, args...)...)), &out); err != nil {
			m.t.Fatal(err)
		}
		return out
	}
	from := []string{}
	for _, s := range append(m.im.Header().Snapshots, Snapshot{}) {
		to := image
		if s.Name != "" {
			to += "@" + s.Name
		}
		covered := make(map[uint64]bool)
		for _, e := range diff(append(slices.Clone(from), "--whole-object", to)...) {
			for at := e.Offset; at < e.Offset+e.Length; at += 512 {
				covered[at/512] = true
			}
		}
		for _, e := range diff(append(slices.Clone(from), to)...) {
			for at := e.Offset &^ 511; at < e.Offset+e.Length; at += 512 {
				if !covered[at/512] {
					m.t.Errorf("diff %v %s: byte %d is not in fast-diff", from, to, at)
					break
				}
			}
		}
		from = []string{"--from-snap", s.Name}
	}
}

func (f *fixture) newModel(t *testing.T, seed uint64, change func(*CreateSpec)) *model {
	f.t.Helper()
	m := &model{f: f, t: t, rng: rand.New(rand.NewPCG(seed, 0)), snapshots: map[string][]byte{}, protected: map[string]bool{}, metadata: map[string]string{}}
	m.spec = f.spec()
	if change != nil {
		change(&m.spec)
	}
	f.create(m.spec)
	m.head = make([]byte, m.spec.Size)
	m.im = f.openImage(f.io, m.spec.ID)
	return m
}

// Random I/O and operations give what plain execution gives, as rbd sees it.
func TestLiveRandom(t *testing.T) {
	for name, change := range map[string]func(*CreateSpec){
		"plain":                func(*CreateSpec) {},
		"striped in data pool": func(s *CreateSpec) { s.StripeUnit, s.StripeCount, s.DataPool = 8192, 3, liveDataPool },
		"without object map":   func(s *CreateSpec) { s.Features &^= rbd.FeatureObjectMap | rbd.FeatureFastDiff },
	} {
		t.Run(name, func(t *testing.T) {
			f := setUp(t)
			m := f.newModel(t, newSeed(t), change)
			rounds, operations := 2, 10
			if thorough {
				rounds, operations = 10, 20
			}
			for round := range rounds {
				for range operations {
					for range 1 + m.rng.IntN(4) {
						m.apply()
					}
					m.operate()
				}
				f.close(m.im)
				if name == "without object map" {
					if got := f.export(m.spec.Name); !bytes.Equal(got, m.head) {
						t.Errorf("round %d: head differs at byte %d", round, firstDifference(got, m.head))
					}
				} else {
					m.verify()
				}
				if t.Failed() {
					return
				}
				m.im = f.openImage(f.io, m.spec.ID)
			}
			f.close(m.im)
		})
	}
}

// An operation killed after any number of writes is made good by doing it again.
func TestLiveOperationsKilled(t *testing.T) {
	type operation struct {
		name string
		do   func(im *Image, ctx context.Context) error
		then func(m *model)
	}
	only := func(_ Outcome, err error) error { return err }
	for _, op := range []operation{
		{"create snapshot", func(im *Image, ctx context.Context) error {
			_, _, err := im.SnapCreate(ctx, nil, "new")
			return err
		}, func(m *model) { m.snapshots["new"] = slices.Clone(m.head) }},
		{"remove snapshot", func(im *Image, ctx context.Context) error { return only(im.SnapRemove(ctx, nil, "a")) },
			func(m *model) { delete(m.snapshots, "a") }},
		{"grow", func(im *Image, ctx context.Context) error { return only(im.Resize(ctx, 5<<20)) },
			func(m *model) { m.head = resized(m.head, 5<<20) }},
		{"shrink", func(im *Image, ctx context.Context) error { return only(im.Resize(ctx, 1<<20+12345)) },
			func(m *model) { m.head = resized(m.head, 1<<20+12345) }},
		{"roll back", func(im *Image, ctx context.Context) error { return only(im.SnapRollback(ctx, nil, "a")) },
			func(m *model) { m.head = slices.Clone(m.snapshots["a"]) }},
		{"rename", func(im *Image, ctx context.Context) error { return only(im.Rename(ctx, "renamed-"+im.ID())) },
			func(m *model) { m.spec.Name = "renamed-" + m.spec.ID }},
	} {
		t.Run(op.name, func(t *testing.T) {
			f := setUp(t)
			seed := newSeed(t)
			for writes := int64(0); ; writes = nextKill(writes) {
				m := f.newModel(t, seed, nil)
				for _, s := range []string{"a", "b"} {
					m.apply()
					if _, _, err := m.im.SnapCreate(m.ctx(), nil, s); err != nil {
						t.Fatal(err)
					}
					m.snapshots[s] = slices.Clone(m.head)
				}
				m.apply()
				f.close(m.im)

				// Opening writes, too: life begins after it.
				life := newMortal(f.io, 1<<30)
				m.im = f.openImage(life, m.spec.ID)
				life.left.Store(writes)
				err := op.do(m.im, m.ctx())
				if abandon := m.im.Abandon(m.ctx()); abandon != nil {
					t.Fatal(abandon)
				}
				m.im = f.openImage(f.io, m.spec.ID)
				if again := op.do(m.im, m.ctx()); again != nil {
					t.Fatalf("killed after %d writes, then: %v", writes, again)
				}
				op.then(m)
				m.apply()
				f.close(m.im)
				m.verify()
				if t.Failed() {
					t.Fatalf("killed after %d writes: %v", writes, err)
				}
				if err == nil {
					return
				}
			}
		})
	}
}

// What a sync does: snapshots first, then the objects' history into them.
func TestLiveCopyHistory(t *testing.T) {
	f := setUp(t)
	spec := f.spec()
	f.create(spec)
	im := f.openImage(f.io, spec.ID)
	ctx := within(t, time.Minute)

	sizes := []uint64{1 << 20, 2 << 20}
	var ids []ceph.SnapID
	for i, size := range sizes {
		id, out, err := im.SnapCreateWithSize(ctx, nil, fmt.Sprint("h", i), size, Sharing{})
		if err != nil || out != Done {
			t.Fatal(out, err)
		}
		if again, out, err := im.SnapCreateWithSize(ctx, nil, fmt.Sprint("h", i), size, Sharing{}); err != nil || out != AlreadyDone || again != id {
			t.Fatal(again, out, err)
		}
		ids = append(ids, id)
	}
	if _, err := im.SetHead(ctx, spec.Size, Sharing{}); err != nil {
		t.Fatal(err)
	}
	// Object 3 has other bytes in the first snapshot than later; object 20 comes
	// into being after the first snapshot.
	for _, w := range []struct {
		object ObjectNumber
		snapc  ceph.SnapContext
		text   string
	}{
		{3, ceph.SnapContext{}, "old"},
		{3, ceph.SnapContext{Seq: ids[0], Snaps: []ceph.SnapID{ids[0]}}, "new"},
		{20, ceph.SnapContext{Seq: ids[0], Snaps: []ceph.SnapID{ids[0]}}, "two"},
	} {
		op := writeOp(w.snapc, []byte(w.text))
		if err := im.WriteObject(ctx, w.object, op); err != nil {
			t.Fatal(err)
		}
	}
	for _, s := range []struct {
		snap   ceph.SnapID
		object ObjectNumber
		state  rbd.ObjectState
	}{
		{ids[0], 3, rbd.ObjectExists},
		{ids[1], 3, rbd.ObjectExists}, {ids[1], 20, rbd.ObjectExists},
		{ceph.NoSnap, 3, rbd.ObjectExistsClean}, {ceph.NoSnap, 20, rbd.ObjectExistsClean},
	} {
		if err := im.SetObjectMapState(ctx, s.snap, s.object, s.object+1, s.state); err != nil {
			t.Fatal(err)
		}
	}
	f.close(im)

	at := func(size uint64, pieces map[uint64]string) []byte {
		b := make([]byte, size)
		for offset, text := range pieces {
			copy(b[offset:], text)
		}
		return b
	}
	for name, want := range map[string][]byte{
		spec.Name + "@h0": at(sizes[0], map[uint64]string{3 << 16: "old"}),
		spec.Name + "@h1": at(sizes[1], map[uint64]string{3 << 16: "new", 20 << 16: "two"}),
		spec.Name:         at(spec.Size, map[uint64]string{3 << 16: "new", 20 << 16: "two"}),
	} {
		if got := f.export(name); !bytes.Equal(got, want) {
			t.Errorf("%s differs at byte %d (sizes %d, %d)", name, firstDifference(got, want), len(got), len(want))
		}
	}
	f.checkObjectMaps(spec.Name, "h0", "h1")
}

// Features that come and go take their object maps with them.
func TestLiveUpdateFeatures(t *testing.T) {
	f := setUp(t)
	m := f.newModel(t, newSeed(t), nil)
	m.apply()
	if _, _, err := m.im.SnapCreate(m.ctx(), nil, "a"); err != nil {
		t.Fatal(err)
	}
	m.snapshots["a"] = slices.Clone(m.head)
	steps := []struct {
		features rbd.Features
		on       bool
		want     Outcome
	}{
		{rbd.FeatureFastDiff, false, Done}, {rbd.FeatureObjectMap, false, AlreadyDone},
		{rbd.FeatureDeepFlatten, false, Done},
		{rbd.FeatureObjectMap, true, Done}, {mapFeatures, true, AlreadyDone},
	}
	for _, s := range steps {
		out, err := m.im.UpdateFeatures(m.ctx(), s.features, s.on)
		m.must(fmt.Sprintf("%v %v", s.features, s.on), out, err, s.want)
		m.apply()
		if maps := f.objects("rbd_object_map." + m.spec.ID); (len(maps) == 2) != m.im.Header().Features.Has(mapFeatures) {
			t.Errorf("after %v %v there are the maps %q", s.features, s.on, maps)
		}
	}
	for _, wrong := range []struct {
		features rbd.Features
		on       bool
	}{{rbd.FeatureJournaling, false}, {rbd.FeatureExclusiveLock, false}, {rbd.FeatureDeepFlatten, true}} {
		if _, err := m.im.UpdateFeatures(m.ctx(), wrong.features, wrong.on); err == nil {
			t.Errorf("%v %v: no error", wrong.features, wrong.on)
		}
	}
	f.close(m.im)
	image := livePool + "/" + m.spec.Name
	f.rbd("mirror", "image", "promote", "--force", image)
	f.rbd("object-map", "rebuild", "--no-progress", image)
	f.rbd("object-map", "rebuild", "--no-progress", image+"@a")
	f.rbd("mirror", "image", "demote", image)
	m.im = f.openImage(f.io, m.spec.ID)
	m.apply()
	f.close(m.im)
	m.verify()
}
