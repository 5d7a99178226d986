package imagemap

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

const cookie = "auto 1"

func assertion() class.Call { return cls.Assert(cls.RBDName, cls.Exclusive, cookie, cls.RBDTag) }

func lock(t *testing.T, io rados.IOContext) {
	t.Helper()
	must(t, rados.Tell(context.Background(), io, Object, cls.Lock(cls.Request{
		Name: cls.RBDName, Type: cls.Exclusive, Cookie: cookie, Tag: cls.RBDTag,
	})))
}

func unlock(t *testing.T, io rados.IOContext) {
	t.Helper()
	must(t, rados.Tell(context.Background(), io, Object, cls.Unlock(cls.RBDName, cookie)))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// pool is a pool in memory; each call of open is another client.
type pool struct {
	t      *testing.T
	store  *mem.Store
	ops    int                         // performed so far
	faults func(op mem.Op) mem.Verdict // may be nil
}

func newPool(t *testing.T) *pool {
	p := &pool{t: t}
	p.store = mem.New(mem.Options{Faults: mem.FaultFunc(func(op mem.Op) mem.Verdict {
		p.ops++
		if p.faults != nil {
			return p.faults(op)
		}
		return mem.Verdict{}
	})})
	p.store.AddPool("rbd")
	return p
}

func (p *pool) open() rados.IOContext {
	p.t.Helper()
	io, err := p.store.Connect().Open(context.Background(), "rbd", "")
	must(p.t, err)
	return io
}

func begin(t *testing.T, io rados.IOContext) *Term {
	t.Helper()
	term, err := Begin(context.Background(), io, assertion())
	must(t, err)
	return term
}

func refresh(t *testing.T, v *View) []string {
	t.Helper()
	changed, err := v.Refresh(context.Background())
	must(t, err)
	return changed
}

func read(t *testing.T, io rados.IOContext) Map {
	t.Helper()
	m, err := Read(context.Background(), io)
	must(t, err)
	return m
}

func equal(t *testing.T, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

var when = time.Unix(1700000000, 5)

func entry(owner string) Entry {
	return Entry{Owner: owner, Mapped: when, Seat: "host/daemon/" + owner, Moved: when.Add(-time.Hour)}
}

// A view sees what a term writes, entry by entry, and costs one read when nothing changed.
func TestViewFollows(t *testing.T) {
	p := newPool(t)
	io := p.open()
	v := NewView(p.open())
	equal(t, "before anything", refresh(t, v), []string(nil))
	lock(t, io)
	term := begin(t, io)
	must(t, term.Write(context.Background(), map[string]Entry{"a": entry("1"), "b": entry("2")}, nil))
	equal(t, "first", refresh(t, v), []string{"a", "b"})
	pinned := entry("2")
	pinned.Pin = "host/daemon/2"
	for _, c := range []struct {
		set    map[string]Entry
		remove []string
		want   []string
	}{
		{map[string]Entry{"a": entry("2")}, nil, []string{"a"}},
		{map[string]Entry{"c": pinned}, []string{"b"}, []string{"b", "c"}},
		{map[string]Entry{"c": pinned}, nil, nil},
		{nil, []string{"none"}, nil},
		{nil, nil, nil},
		{map[string]Entry{"b": entry("3")}, []string{"a", "b"}, []string{"a", "b"}},
	} {
		must(t, term.Write(context.Background(), c.set, c.remove))
		equal(t, "changed", refresh(t, v), c.want)
		equal(t, "the view", v.Map(), read(t, io))
		equal(t, "the term's map", term.Map(), read(t, io))
	}
	before := p.ops
	equal(t, "idle", refresh(t, v), []string(nil))
	if p.ops != before+1 {
		t.Errorf("an idle refresh took %d operations", p.ops-before)
	}
}

// meanwhile does something before the nth read.
type meanwhile struct {
	rados.IOContext
	left *int
	do   func()
}

func (m meanwhile) Read(ctx context.Context, object string, op *rados.ReadOp) error {
	if *m.left--; *m.left == 0 {
		m.do()
	}
	return m.IOContext.Read(ctx, object, op)
}

// What the leader writes between two reads of a view may be in the view, which knows that: who was given an image
// then does not take those for heard who have heard of the map before.
func TestAViewThatIsReadWhileTheMapChanges(t *testing.T) {
	for n, want := range map[int]string{1: "3, 4 to 4", 2: "3, 3 to 4", 3: "3, 3 to 4", 4: "2, 3 to 3"} {
		p := newPool(t)
		io := p.open()
		lock(t, io)
		term := begin(t, io)
		left := -1
		v := NewView(meanwhile{p.open(), &left, func() { must(t, term.Write(context.Background(), map[string]Entry{"a": entry("3")}, nil)) }})
		must(t, term.Write(context.Background(), map[string]Entry{"a": entry("1")}, nil))
		refresh(t, v)
		must(t, term.Write(context.Background(), map[string]Entry{"a": entry("2")}, nil))
		left = n
		refresh(t, v)
		m := v.Map()
		if got := fmt.Sprintf("%s, %d to %d", m.Images["a"].Owner, m.Epoch, m.Newest); got != want {
			t.Errorf("written before read %d: %s, want %s", n, got, want)
		}
	}
}

// Whatever a view has missed, it ends where the map is.
func TestViewCatchesUp(t *testing.T) {
	for _, missed := range []int{1, 5, deltas - 1, deltas, deltas + 1, 3 * deltas} {
		t.Run(fmt.Sprint(missed), func(t *testing.T) {
			p := newPool(t)
			io := p.open()
			lock(t, io)
			term := begin(t, io)
			must(t, term.Write(context.Background(), map[string]Entry{"gone": entry("1")}, nil))
			v := NewView(io)
			refresh(t, v)
			for n := range missed {
				must(t, term.Write(context.Background(), map[string]Entry{fmt.Sprint(n): entry("1")}, []string{"gone"}))
			}
			before := p.ops
			if got := len(refresh(t, v)); got != missed+1 {
				t.Errorf("%d entries changed, told of %d", missed+1, got)
			}
			// The epoch, then the deltas and what they name, or everything.
			if got, want := p.ops-before, map[bool]int{true: 3, false: 2}[missed <= deltas]; got != want {
				t.Errorf("it took %d operations, not %d", got, want)
			}
			equal(t, "the view", v.Map(), read(t, io))
			var op rados.ReadOp
			kept := op.ListOmap("", deltaPrefix, 1000)
			must(t, io.Read(context.Background(), Object, &op))
			if len(kept.Pairs) > deltas {
				t.Errorf("%d deltas are kept", len(kept.Pairs))
			}
		})
	}
}

// What rbd-mirror changed while it led is in no delta: a new term makes views read all.
func TestANewTermSpreadsWhatUpstreamChanged(t *testing.T) {
	p := newPool(t)
	io := p.open()
	v := NewView(p.open())
	theirs := func(id, owner string) {
		m := mirror.ImageMap{InstanceID: owner, MappedTime: when, Data: mirror.PolicyData{}.Bytes()}
		must(t, rados.Tell(context.Background(), io, Object, mirror.ImageMapUpdate(id, m)))
	}
	theirs("a", "1")
	equal(t, "a map that only rbd-mirror wrote", refresh(t, v), []string{"a"})
	equal(t, "its entry", v.Map().Images["a"], Entry{Owner: "1", Mapped: when, Moved: when})
	theirs("a", "2")
	equal(t, "its change", refresh(t, v), []string{"a"})
	lock(t, io)
	must(t, begin(t, io).Write(context.Background(), map[string]Entry{"b": entry("1")}, nil))
	refresh(t, v)
	theirs("b", "7")
	begin(t, io)
	var op rados.ReadOp
	left := op.ListOmap("", deltaPrefix, 10)
	must(t, io.Read(context.Background(), Object, &op))
	if len(left.Pairs) > 0 {
		t.Errorf("a new term leaves %d deltas, which may belong to other epochs of the same number", len(left.Pairs))
	}
	equal(t, "after a new term", refresh(t, v), []string{"b"})
	equal(t, "the owner", v.Map().Images["b"].Owner, "7")
}

// Invariant: a write lands only while the lock is held.
func TestAStaleLeaderIsRefused(t *testing.T) {
	p := newPool(t)
	old, now := p.open(), p.open()
	lock(t, old)
	term := begin(t, old)
	must(t, term.Write(context.Background(), map[string]Entry{"a": entry("1")}, nil))
	unlock(t, old)
	refused := func(what string) {
		t.Helper()
		before := read(t, now)
		if err := term.Write(context.Background(), map[string]Entry{"a": entry("2")}, nil); !errors.Is(err, ErrNotLeader) {
			t.Errorf("%s: %v", what, err)
		}
		equal(t, what, read(t, now), before)
		must(t, term.Reload(context.Background()))
	}
	refused("nobody leads")
	lock(t, now)
	refused("another leads")
	begin(t, now)
	refused("another leads and has begun")
	if _, err := Begin(context.Background(), old, assertion()); !errors.Is(err, ErrNotLeader) {
		t.Errorf("a term without the lock: %v", err)
	}
	if _, err := Begin(context.Background(), old); err == nil {
		t.Error("a term without an assertion")
	}
	must(t, p.store.Connect().Blocklist(context.Background(), old.Cluster().Addresses(), 0))
	if err := term.Write(context.Background(), nil, nil); rados.Classify(err) != rados.Fenced {
		t.Errorf("a fenced leader's write: %v", err)
	}
}

// Invariant: a write that was given up and lands late does not undo a newer.
func TestALateWriteIsRefused(t *testing.T) {
	p := newPool(t)
	io := p.open()
	lock(t, io)
	term := begin(t, io)
	p.faults = func(op mem.Op) mem.Verdict { return mem.Verdict{Fail: syscall.ETIMEDOUT} }
	late := term.step([]string{"a"}, map[string]Entry{"a": entry("late")})
	if err := term.write(context.Background(), late); !errors.Is(err, syscall.ETIMEDOUT) {
		t.Fatal(err)
	}
	p.faults = nil
	if err := term.Write(context.Background(), map[string]Entry{"a": entry("1")}, nil); !errors.Is(err, ErrStale) {
		t.Errorf("a write on a map of which it is not known what it is: %v", err)
	}
	must(t, term.Reload(context.Background()))
	at := term.m.Epoch
	must(t, term.Write(context.Background(), map[string]Entry{"a": entry("new")}, nil))
	newer := term.m.Epoch
	term.m.Epoch = at // as the late operation has it
	if err := term.write(context.Background(), late); !errors.Is(err, ErrStale) {
		t.Errorf("the late write: %v", err)
	}
	equal(t, "the owner", read(t, io).Images["a"].Owner, "new")
	equal(t, "the epoch", read(t, io).Epoch, newer)
}

// Many images are written in bounded operations, and what landed before one failed is
// known to the term.
func TestManyImages(t *testing.T) {
	p := newPool(t)
	io := p.open()
	lock(t, io)
	term := begin(t, io)
	set := map[string]Entry{}
	for n := range 3*page + 1 {
		set[fmt.Sprintf("%05d", n)] = entry("1")
	}
	before := p.ops
	must(t, term.Write(context.Background(), set, nil))
	if got := p.ops - before; got != 4 {
		t.Errorf("%d images took %d operations", len(set), got)
	}
	before = p.ops
	m := read(t, io)
	equal(t, "the map", m, term.Map())
	if got := p.ops - before; got != 4 || len(m.Images) != len(set) {
		t.Errorf("%d images read in %d operations", len(m.Images), got)
	}
	writes := 0
	p.faults = func(op mem.Op) mem.Verdict {
		if writes++; writes > 2 {
			return mem.Verdict{Fail: syscall.EIO}
		}
		return mem.Verdict{}
	}
	for id := range set {
		set[id] = entry("2")
	}
	if err := term.Write(context.Background(), set, nil); !errors.Is(err, syscall.EIO) {
		t.Fatal(err)
	}
	p.faults = nil
	equal(t, "what landed", term.Map(), read(t, io))
}

// rbd-mirror reads what we write, and finds nothing else.
func TestUpstreamReadsOurs(t *testing.T) {
	p := newPool(t)
	io := p.open()
	lock(t, io)
	must(t, rados.Tell(context.Background(), io, Object, mirror.InstancesAdd("4711")))
	term := begin(t, io)
	must(t, term.Write(context.Background(), map[string]Entry{"g": entry("4711")}, nil))
	assertUpstream(t, io, "4711")
}

func assertUpstream(t *testing.T, io rados.IOContext, owner string) {
	t.Helper()
	list, err := rados.Ask(context.Background(), io, Object, mirror.ImageMapList("", page))
	must(t, err)
	if len(list) != 1 || list["g"].InstanceID != owner || !list["g"].MappedTime.Equal(when) {
		t.Errorf("the class lists %+v", list)
	}
	data, err := mirror.DecodePolicyData(list["g"].Data)
	if err != nil || data.Kind != mirror.PolicyNone {
		t.Errorf("policy data %+v, %v", data, err)
	}
	ids, err := rados.Ask(context.Background(), io, Object, mirror.InstancesList())
	must(t, err)
	equal(t, "instances", ids, []string{owner})
}

// Damaged entries are named and kept, and no reason to stop for the others.
func TestDamaged(t *testing.T) {
	whole := entry("1").encode()
	foreign := mirror.ImageMap{InstanceID: "1", MappedTime: when, Data: mirror.PolicyData{Kind: 7, Raw: []byte("x")}.Bytes()}
	var newer encoding.Encoder
	foreign.Encode(&newer)
	for name, c := range map[string]struct {
		value   []byte
		damaged bool
	}{
		"whole":                {whole, false},
		"a newer policy's":     {newer.Bytes(), false},
		"empty":                {nil, true},
		"cut":                  {whole[:len(whole)-3], true},
		"extras cut":           {shorten(entry("1")), true},
		"needs a newer reader": {append([]byte{9, 9}, whole[2:]...), true},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPool(t)
			io := p.open()
			lock(t, io)
			term := begin(t, io)
			must(t, term.Write(context.Background(), map[string]Entry{"a": entry("1"), "b": entry("1")}, nil))
			v := NewView(io)
			refresh(t, v)
			var op rados.WriteOp
			op.SetOmap(map[string][]byte{"image_map_a": c.value})
			must(t, io.Write(context.Background(), Object, &op))
			term = begin(t, io)
			refresh(t, v)
			for _, m := range []Map{v.Map(), term.Map()} {
				err := m.Damaged["a"]
				if _, known := m.Images["a"]; known == c.damaged || (err != nil) != c.damaged || m.Images["b"].Owner != "1" {
					t.Fatalf("%+v", m)
				}
				if c.damaged && (rados.Classify(err) != rados.Corrupt || !strings.Contains(err.Error(), "image_map_a rbd/rbd_mirror_leader: corrupt ")) {
					t.Errorf("the error is %v", err)
				}
			}
			err := term.Write(context.Background(), map[string]Entry{"a": entry("2")}, nil)
			if (err != nil) != c.damaged {
				t.Errorf("written over: %v", err)
			}
			must(t, term.Write(context.Background(), nil, []string{"a"}))
			equal(t, "removed", refresh(t, v), []string{"a"})
			equal(t, "the map", v.Map(), term.Map())
		})
	}
}

// shorten damages our part of an entry only.
func shorten(e Entry) []byte {
	r := e.record()
	p, _ := mirror.DecodePolicyData(r.Data)
	p.Raw = p.Raw[:len(p.Raw)-1]
	r.Data = p.Bytes()
	var x encoding.Encoder
	r.Encode(&x)
	return x.Bytes()
}

// A damaged epoch or delta is an error that names it, in no case a map that looks whole.
func TestDamagedBookkeeping(t *testing.T) {
	p := newPool(t)
	io := p.open()
	lock(t, io)
	term := begin(t, io)
	v := NewView(io)
	refresh(t, v)
	must(t, term.Write(context.Background(), map[string]Entry{"a": entry("1")}, nil))
	var op rados.WriteOp
	op.SetOmap(map[string][]byte{term.m.Epoch.deltaKey(): {1, 1, 200}})
	must(t, io.Write(context.Background(), Object, &op))
	if _, err := v.Refresh(context.Background()); rados.Classify(err) != rados.Corrupt || !strings.Contains(err.Error(), deltaPrefix) {
		t.Errorf("damaged delta: %v", err)
	}
	for _, bad := range []string{"", "0", "-1", "2x", "99999999999999999999"} {
		var op rados.WriteOp
		op.SetXattr(epochAttr, []byte(bad))
		must(t, io.Write(context.Background(), Object, &op))
		if _, err := Read(context.Background(), io); rados.Classify(err) != rados.Corrupt || !strings.Contains(err.Error(), epochAttr) {
			t.Errorf("epoch %q: %v", bad, err)
		}
		if _, err := v.Refresh(context.Background()); rados.Classify(err) != rados.Corrupt {
			t.Errorf("epoch %q: %v", bad, err)
		}
	}
}

func TestNobodyIsNoOwner(t *testing.T) {
	p := newPool(t)
	io := p.open()
	lock(t, io)
	if err := begin(t, io).Write(context.Background(), map[string]Entry{"a": {}}, nil); err == nil {
		t.Error("an image was given to nobody")
	}
}

func FuzzEntry(f *testing.F) {
	f.Add(entry("1").encode())
	f.Add(shorten(entry("1")))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := decodeEntry(b)
		if err != nil {
			return
		}
		again, err := decodeEntry(e.encode())
		if err != nil || !same(e, again) {
			t.Errorf("%+v became %+v, %v", e, again, err)
		}
	})
}
