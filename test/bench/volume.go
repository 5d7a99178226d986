package bench

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// features are what images have: what mirroring meets in practice.
const features uint64 = rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureObjectMap | rbd.FeatureFastDiff | rbd.FeatureDeepFlatten

// Place is a pool of one turn, and the bench's own connections to it on both sites.
type Place struct {
	r     *Round
	pool  *harness.Pool
	here  *rados.IOContext // the primary
	there *rados.IOContext // the secondary

	mu    sync.Mutex
	looks looks // at the secondary
}

// looked counts a look at the secondary, unless it found no object: the OSD does not count those.
func (p *Place) looked(bytes int, err error) {
	if err != nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.looks.ops++
	p.looks.bytes += float64(bytes)
}

// looks are what the bench itself has read from a cluster, to be taken off the OSD's counters.
type looks struct{ ops, bytes float64 }

// newPlace makes a pool. librbd's cache is off: each write is one entry of the journal.
func (r *Round) newPlace(mode lab.MirrorMode) *Place {
	r.Helper()
	p := &Place{r: r, pool: harness.NewPool(r, r.Pair, mode)}
	p.here = harness.Connect(r, p.pool, r.Pair.Primary, "rbd_cache", "false")
	p.there = harness.Connect(r, p.pool, r.Pair.Secondary)
	return p
}

// Volume is an image on the primary and, once that is there, its copy.
type Volume struct {
	place *Place
	name  string
	id    string // on the primary
	copy  string // id on the secondary
	size  uint64
	order uint8
	disk  *rbd.Image // open for writing; nil: it is not
}

// block is the size of a marker, in bytes. The last block of each image is for markers only.
const block = 4 << 10

// createAll makes images of a size, with objects of 4 MiB, mirrored if their pool is as a whole and they have journals.
func (p *Place) createAll(n int, size uint64, journaling bool) []*Volume {
	p.r.Helper()
	all := make([]*Volume, n)
	p.r.must(parallel(n, 4, func(i int) (err error) {
		all[i], err = p.create(fmt.Sprintf("image%04d", i), size, journaling)
		return err
	}))
	return all
}

// objectOrder is the binary logarithm of the size of data objects.
const objectOrder = 22

// create makes an image.
func (p *Place) create(name string, size uint64, journaling bool) (*Volume, error) {
	options := rbd.NewRbdImageOptions()
	defer options.Destroy()
	set := features
	if journaling {
		set |= rbd.FeatureJournaling
	}
	err := errors.Join(options.SetUint64(rbd.ImageOptionOrder, objectOrder), options.SetUint64(rbd.ImageOptionFeatures, set))
	if err == nil {
		err = rbd.CreateImage(p.here, name, size, options)
	}
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", name, err)
	}
	id, err := idOf(p.here, name)
	return &Volume{place: p, name: name, id: id, size: size, order: objectOrder}, err
}

// idOf asks for an image's id.
func idOf(ioctx *rados.IOContext, name string) (id string, err error) {
	image, err := rbd.OpenImageReadOnly(ioctx, name, rbd.NoSnapshot)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	return image.GetId()
}

// open opens the image for writing.
func (v *Volume) open() (err error) {
	v.disk, err = rbd.OpenImage(v.place.here, v.name, rbd.NoSnapshot)
	return err
}

// close closes it; the primary's own commit position then covers all that was written.
func (v *Volume) close() error { return v.disk.Close() }

// extent is a range of an image, in bytes.
type extent struct {
	at   uint64
	size int
}

// scatter are n extents of a size at random, whole multiples of it from the image's start, before the last block.
func (v *Volume) scatter(n, size int, seed uint64) []extent {
	random := rand.New(rand.NewPCG(seed, 1))
	all := make([]extent, n)
	for i := range all {
		all[i] = extent{random.Uint64N((v.size-block)/uint64(size)) * uint64(size), size}
	}
	return all
}

// sequence are n extents of a size one behind the other, over and over the image but for what is behind the last whole one.
func (v *Volume) sequence(n, size int) []extent {
	all := make([]extent, n)
	for i := range all {
		all[i] = extent{uint64(i) * uint64(size) % ((v.size - block) / uint64(size) * uint64(size)), size}
	}
	return all
}

// noise is what writes take their bytes from: they do not repeat within it, so that nothing can be compressed or left out.
var noise = sync.OnceValue(func() []byte {
	b := make([]byte, 16<<20)
	var seed [32]byte
	_, _ = io.ReadFull(rand.NewChaCha8(seed), b)
	return b
})

// payload is what write n of a size writes.
func payload(n, size int) []byte {
	all := noise()
	at := n * 4099 % (len(all) - size)
	return all[at : at+size]
}

// together is how many writes the bench has under way at a time.
const together = 32

// write writes all extents, of one size and whole multiples of it away from the image's start, many at a time, and then
// flushes. Never are two writes to the same place under way: librbd may do them in one order and journal them in the other,
// so that no replay could be equal.
func (v *Volume) write(extents []extent) error {
	var places [1024]sync.Mutex
	err := parallel(len(extents), together, func(n int) error {
		e := extents[n]
		place := &places[e.at/uint64(e.size)%uint64(len(places))]
		place.Lock()
		defer place.Unlock()
		_, err := v.disk.WriteAt(payload(n, e.size), int64(e.at))
		return err
	})
	return errors.Join(err, v.disk.Flush())
}

// mark writes a number into the image's last block, behind everything that was flushed before it, and flushes it.
func (v *Volume) mark(number uint64) error {
	b := make([]byte, block)
	binary.LittleEndian.PutUint64(b, number)
	_, err := v.disk.WriteAt(b, int64(v.size-block))
	return errors.Join(err, v.disk.Flush())
}

// object names the copy's data object with a byte of the image, and says where in it that is.
func (v *Volume) object(at uint64) (string, uint64) {
	return fmt.Sprintf("rbd_data.%s.%016x", v.copy, at>>v.order), at & (1<<v.order - 1)
}

// marked reads which mark the copy holds, 0 for none.
func (v *Volume) marked() uint64 {
	if v.copy == "" {
		id, err := idOf(v.place.there, v.name)
		if err != nil {
			return 0
		}
		v.copy = id
	}
	oid, at := v.object(v.size - block)
	b := make([]byte, 8)
	n, err := v.place.there.Read(oid, b, at)
	v.place.looked(n, err)
	if err != nil || n < len(b) {
		return 0
	}
	return binary.LittleEndian.Uint64(b)
}

// awaitMark waits until all copies hold a mark.
func (p *Place) awaitMark(volumes []*Volume, number uint64) {
	p.r.Helper()
	waiting := volumes
	p.r.await(5*time.Millisecond, func() string {
		for len(waiting) > 0 && waiting[0].marked() == number {
			waiting = waiting[1:]
		}
		if len(waiting) == 0 {
			return ""
		}
		return fmt.Sprintf("%d copies, %s among them, have not got mark %d", len(waiting), waiting[0].name, number)
	})
}
