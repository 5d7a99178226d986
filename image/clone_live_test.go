//go:build live

package image

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	cephrados "github.com/ceph/go-ceph/rados"
	cephrbd "github.com/ceph/go-ceph/rbd"
)

// twins are two clones of the same snapshot: ours is written by this package, theirs by
// librbd.
type twins struct {
	*fixture
	t      *testing.T
	rng    *rand.Rand
	ioctx  *cephrados.IOContext // librbd's
	base   string               // unique part of all names
	im     *Image
	theirs *cephrbd.Image
	snaps  []string
	serial int
	last   string // the last I/O
	rolled bool   // a rollback came to pass: see compareUse
	// undone are objects that one batch wrote to and gave back: see compareHistories.
	undone map[uint64]bool
	// granularity of librbd's discards: 0 without rbd_skip_partial_discard.
	granularity uint64
}

// cloneCase is one kind of clone.
type cloneCase struct {
	format      int
	parent      []string // options of rbd create
	middle      []string // options of rbd clone, if the parent is a clone itself
	child       []string // options of rbd clone
	features    string
	namespace   bool // the parent is in a namespace
	trash       bool // the parent is moved to the trash
	granularity uint64
}

const liveFeatures = "layering,exclusive-lock,object-map,fast-diff,deep-flatten"

const liveCloneSize = 1<<20 + 12345

func newTwins(t *testing.T, f *fixture, seed uint64, c cloneCase) *twins {
	t.Helper()
	own := *f
	own.t = t
	w := &twins{fixture: &own, t: t, rng: rand.New(rand.NewPCG(seed, 9)), base: NewID(f.cluster), granularity: c.granularity, undone: map[uint64]bool{}}
	conn, err := cephrados.NewConn()
	w.must(err)
	w.must(conn.ReadConfigFile(f.conf))
	for k, v := range map[string]string{"rbd_cache": "false", "rbd_skip_partial_discard": fmt.Sprint(c.granularity > 0)} {
		w.must(conn.SetConfigOption(k, v))
	}
	w.must(conn.Connect())
	t.Cleanup(conn.Shutdown)
	w.ioctx, err = conn.OpenIOContext(livePool)
	w.must(err)
	t.Cleanup(w.ioctx.Destroy)

	where := livePool
	if c.namespace {
		w.rbd("namespace", "create", livePool+"/"+w.base)
		where += "/" + w.base
	}
	parent := where + "/parent-" + w.base
	w.rbd(slices.Concat([]string{"create", "--size", fmt.Sprint(liveCloneSize, "B"), "--image-feature", liveFeatures, parent}, c.parent)...)
	w.fill(conn, where, "parent-"+w.base)
	if c.middle != nil {
		middle := liveDataPool + "/middle-" + w.base
		w.clone(c, parent, middle, c.middle)
		w.fill(conn, liveDataPool, "middle-"+w.base)
		parent = middle
	}
	for _, name := range []string{w.name("ours"), w.name("theirs")} {
		w.clone(c, parent, livePool+"/"+name, slices.Concat([]string{"--image-feature", c.features}, c.child))
	}
	if c.trash {
		w.rbd("trash", "mv", parent)
	}
	w.openBoth()
	return w
}

func (w *twins) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *twins) ctx() context.Context { return within(w.t, time.Minute) }

func (w *twins) name(whose string) string { return whose + "-" + w.base }

func (w *twins) clone(c cloneCase, parent, child string, options []string) {
	if c.format == 1 {
		if out, err := w.try("rbd", "snap", "protect", parent+"@s"); err != nil && !strings.Contains(out, "already") {
			w.t.Fatal(out)
		}
	}
	w.rbd(slices.Concat([]string{"clone", "--rbd-default-clone-format", fmt.Sprint(c.format), parent + "@s", child}, options)...)
}

// fill writes some of an image, which zeros are part of, makes the snapshot that is
// cloned, and changes the head.
func (w *twins) fill(conn *cephrados.Conn, where, name string) {
	w.t.Helper()
	pool, namespace, _ := strings.Cut(where, "/")
	ioctx, err := conn.OpenIOContext(pool)
	w.must(err)
	defer ioctx.Destroy()
	ioctx.SetNamespace(namespace)
	image, err := cephrbd.OpenImage(ioctx, name, cephrbd.NoSnapshot)
	w.must(err)
	for range 4 {
		at := w.rng.Uint64N(liveCloneSize)
		b := randomBytes(w.rng, min(liveCloneSize-at, 1+w.rng.Uint64N(200000)))
		if w.rng.IntN(4) == 0 {
			clear(b)
		}
		_, err = image.WriteAt(b, int64(at))
		w.must(err)
	}
	_, err = image.CreateSnapshot("s")
	w.must(err)
	_, err = image.WriteSame(0, liveCloneSize&^511, randomBytes(w.rng, 512), 0)
	w.must(err)
	w.must(image.Close())
}

func (w *twins) openBoth() {
	w.t.Helper()
	id, err := ID(w.ctx(), w.io, w.name("ours"))
	w.must(err)
	w.im = w.openImage(w.io, id)
	w.theirs, err = cephrbd.OpenImage(w.ioctx, w.name("theirs"), cephrbd.NoSnapshot)
	w.must(err)
}

func (w *twins) closeBoth() {
	w.t.Helper()
	w.close(w.im)
	w.must(w.theirs.Close())
}

// io applies a batch to both.
func (w *twins) write() {
	w.t.Helper()
	size := w.im.Header().Size
	object := w.im.Header().Layout.ObjectSize()
	var ios []IO
	for range 1 + w.rng.IntN(4) {
		io := IO{
			Kind:   []Kind{Write, Write, Discard, Discard, WriteSame}[w.rng.IntN(5)],
			Offset: w.rng.Uint64N(size) &^ 511, Length: (1 + w.rng.Uint64N(100)) * 512, DiscardGranularity: w.granularity,
		}
		if w.rng.IntN(3) == 0 {
			io.Offset &^= object - 1
			io.Length = object
		}
		if io.Length = min(io.Length, size-io.Offset); io.Kind == WriteSame {
			io.Length &^= 511
		}
		if io.Length == 0 {
			continue
		}
		var err error
		switch io.Kind {
		case Write:
			io.Data = randomBytes(w.rng, io.Length)
			_, err = w.theirs.WriteAt(io.Data, int64(io.Offset))
		case WriteSame:
			io.Data = randomBytes(w.rng, 512)
			_, err = w.theirs.WriteSame(io.Offset, io.Length, io.Data, 0)
		case Discard:
			_, err = w.theirs.Discard(io.Offset, io.Length)
		}
		w.must(err)
		if io.Kind == Discard && w.granularity > 0 && alreadyAligned(w.im.Header().Layout, io) {
			continue // librbd leaves nothing of it, and would not have journalled it
		}
		ios = append(ios, io)
	}
	w.last = ""
	for _, io := range ios {
		w.last += fmt.Sprintf(" %v %d+%d", io.Kind, io.Offset, io.Length)
	}
	w.noteUndone(ios)
	_, err := w.im.Apply(w.ctx(), ios)
	w.must(err)
}

func (w *twins) noteUndone(batch []IO) {
	written := map[ObjectNumber]bool{}
	for _, io := range batch {
		for _, e := range w.im.Header().Layout.Extents(io.Offset, io.Length) {
			switch {
			case io.Kind != Discard:
				written[e.Object] = true
			case written[e.Object]:
				w.undone[uint64(e.Object)] = true
			}
		}
	}
}

// compareAndWrite is, where the bytes are equal, a write.
func (w *twins) compareAndWrite() {
	w.t.Helper()
	at := w.rng.Uint64N(w.im.Header().Size) &^ 511
	io := IO{Kind: CompareAndWrite, Offset: at, Length: min(512, w.im.Header().Size-at)}
	io.Compare, io.Data = make([]byte, io.Length), randomBytes(w.rng, io.Length)
	_, err := w.theirs.ReadAt(io.Compare, int64(at))
	w.must(err)
	_, err = w.theirs.WriteAt(io.Data, int64(at))
	w.must(err)
	differs, err := w.im.Apply(w.ctx(), []IO{io})
	if err != nil || len(differs) > 0 {
		w.t.Fatalf("compare and write at %d: %v, %v", at, differs, err)
	}
}

func (w *twins) step() string {
	w.t.Helper()
	var snap string
	if len(w.snaps) > 0 {
		snap = w.snaps[w.rng.IntN(len(w.snaps))]
	}
	switch n := w.rng.IntN(16); {
	case n < 7:
		w.write()
		return w.last
	case n < 9:
		w.compareAndWrite()
		return "compare and write"
	case n < 11:
		w.serial++
		name := fmt.Sprint("s", w.serial)
		_, _, err := w.im.SnapCreate(w.ctx(), nil, name)
		w.must(err)
		_, err = w.theirs.CreateSnapshot(name)
		w.must(err)
		w.snaps = append(w.snaps, name)
		return "create " + name
	case n < 13:
		size := 1 + w.rng.Uint64N(liveCloneSize*3/2)
		_, err := w.im.Resize(w.ctx(), size)
		w.must(err)
		w.must(w.theirs.Resize(size))
		return fmt.Sprint("resize to ", size)
	case n < 15 && snap != "":
		_, err := w.im.SnapRollback(w.ctx(), nil, snap)
		w.must(err)
		w.must(w.theirs.GetSnapshot(snap).Rollback())
		w.rolled = true
		return "roll back to " + snap
	case n == 15 && snap != "":
		w.remove(snap)
		return "remove " + snap
	}
	return "nothing"
}

func (w *twins) remove(snap string) {
	w.t.Helper()
	_, err := w.im.SnapRemove(w.ctx(), nil, snap)
	w.must(err)
	w.must(w.theirs.GetSnapshot(snap).Remove())
	w.snaps = slices.DeleteFunc(w.snaps, func(s string) bool { return s == snap })
}

// TestLiveClones does the same to clones through this package and through librbd, and
// compares bytes, objects, their states for snapshots, object maps and relations.
func TestLiveClones(t *testing.T) {
	f := setUp(t)
	seed := newSeed(t)
	for name, c := range map[string]cloneCase{
		"format 2": {
			format: 2, parent: []string{"--object-size", "64K"}, child: []string{"--object-size", "64K"}, features: liveFeatures,
		},
		"format 1, larger objects, no deep flatten": {
			format: 1, parent: []string{"--object-size", "32K"}, child: []string{"--object-size", "128K"},
			features: "layering,exclusive-lock,object-map,fast-diff", granularity: 65536,
		},
		"clone of a clone, striped": {
			format: 2, parent: []string{"--object-size", "128K"},
			middle: []string{"--object-size", "32K", "--stripe-unit", "8K", "--stripe-count", "3", "--image-feature", liveFeatures},
			child:  []string{"--object-size", "64K", "--stripe-unit", "16K", "--stripe-count", "2", "--data-pool", liveDataPool}, features: liveFeatures,
		},
		"no object map, parent in a namespace and in the trash": {
			format: 2, parent: []string{"--object-size", "64K"}, child: []string{"--object-size", "64K"},
			features: "layering,exclusive-lock,deep-flatten", namespace: true, trash: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			rounds, steps := 2, 12
			if thorough {
				rounds, steps = 6, 25
			}
			w := newTwins(t, f, seed, c)
			var story []string
			for range rounds {
				for range steps {
					story = append(story, w.step())
				}
				if w.compare(); t.Failed() {
					t.Fatalf("after %q", story)
				}
			}
			_, err := w.im.Flatten(w.ctx(), nil)
			w.must(err)
			w.must(w.theirs.Flatten())
			if w.compare(); t.Failed() {
				t.Fatalf("flattened after %q", story)
			}
			for len(w.snaps) > 0 {
				w.remove(w.snaps[w.rng.IntN(len(w.snaps))])
			}
			if w.compare(); t.Failed() {
				t.Fatalf("without snapshots, flattened after %q", story)
			}
			w.closeBoth()
			if w.im.Header().HasParent() {
				t.Error("still a clone")
			}
		})
	}
}
