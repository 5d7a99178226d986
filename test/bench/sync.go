package bench

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// original is what is to be copied.
type original struct {
	images  int
	size    uint64 // of each, in bytes
	writes  int    // to each
	bytes   int    // of each write
	inOrder bool
	sparse  bool // next to nothing is in it
}

// syncCases measure first copies, and copies that are made again.
func syncCases() []Case {
	both := []Side{Ours, Upstream}
	sync := func(name, about string, of func(Scale) original) Case {
		return Case{Name: "sync/" + name, About: about, Sides: both, Turn: func(r *Round) { r.sync(of(r.Scale)) }}
	}
	return []Case{
		sync("full", "first copy of an image that is full", func(s Scale) original {
			size := s.of(128*mib, 1024*mib)
			return original{images: 1, size: uint64(size), writes: size/(4*mib) - 1, bytes: 4 * mib, inOrder: true}
		}),
		sync("sparse", "first copy of a large image with a little in it", func(s Scale) original {
			return original{images: 1, size: uint64(s.of(16, 256)) << 30, writes: s.of(64, 512), bytes: 64 * kib, sparse: true}
		}),
		sync("images", "first copies of many small images", func(s Scale) original {
			return original{images: s.of(20, 100), size: 8 * mib, writes: 16, bytes: 64 * kib}
		}),
		{Name: "resync/changed", About: "re-sync of a copy in which one block is wrong", Sides: both, Turn: func(r *Round) {
			size := r.Scale.of(128*mib, 512*mib)
			r.resync(original{images: 1, size: uint64(size), writes: size/(4*mib) - 1, bytes: 4 * mib, inOrder: true})
		}},
	}
}

// write makes images without journals and fills them.
func (o original) write(p *Place) []*Volume {
	p.r.Helper()
	volumes := p.createAll(o.images, o.size, false)
	p.each(volumes, func(n int, v *Volume) error {
		extents := v.scatter(o.writes, o.bytes, uint64(n))
		if o.inOrder {
			extents = v.sequence(o.writes, o.bytes)
		}
		if err := v.write(extents); err != nil {
			return err
		}
		return v.mark(markReady)
	})
	return volumes
}

// sync has the images mirrored before there is a daemon, and lets one make the copies: from its start until it replays all.
func (r *Round) sync(o original) {
	p := r.newPlace(lab.ImageMode)
	volumes := o.write(p)
	p.mirror(volumes)
	before := p.open(nil)
	d := r.start()
	p.awaitCopied(volumes)
	r.Values["seconds"] = time.Since(before.began).Seconds()
	before.daemon = d
	before.close(o.images*o.writes, o.images*o.writes*o.bytes)
	p.awaitMark(volumes, markReady)
	if o.sparse {
		p.assertSameObjects(volumes[0])
		return
	}
	p.assertEqual(volumes...)
}

// mirror has images mirrored, which gives them journals.
func (p *Place) mirror(volumes []*Volume) {
	p.r.Helper()
	p.each(volumes, func(_ int, v *Volume) error {
		if err := v.disk.UpdateFeatures(rbd.FeatureJournaling, true); err != nil {
			return err
		}
		return v.disk.MirrorEnable(rbd.ImageMirrorModeJournal)
	})
}

// awaitCopied waits until the primary's journals say of all images that the mirror has its copy.
func (p *Place) awaitCopied(volumes []*Volume) {
	p.r.Helper()
	p.r.await(20*time.Millisecond, func() string { return lacking(volumes, "made its copy", progress.replays) })
}

// resync lets the daemon replay an image, changes a block of the copy behind its back, and asks for a re-sync: until the copy
// is as it should be, and the request is gone.
func (r *Round) resync(o original) {
	p := r.newPlace(lab.ImageMode)
	volumes := o.write(p)
	p.mirror(volumes)
	d := r.start()
	p.awaitCopied(volumes)
	v := volumes[0]
	p.awaitMark(volumes, markReady)
	r.awaitReplaying(v)
	oid, at := v.object(v.size / 2)
	r.must(p.there.Write(oid, make([]byte, block), at))
	want := make([]byte, block)
	p.each(volumes, func(_ int, v *Volume) error {
		_, err := v.disk.ReadAt(want, int64(v.size/2))
		return err
	})

	a := p.open(d)
	image := harness.Image{Pool: p.pool, Name: v.name}
	harness.Run(r, r.Pair.Secondary, "rbd", "mirror", "image", "resync", image.Spec())
	p.awaitBlock(v, v.size/2, want)
	p.awaitCopied(volumes)
	r.Values["seconds"] = time.Since(a.began).Seconds()
	a.close(o.writes, o.writes*o.bytes)
	r.awaitReplaying(v)
	p.assertEqual(v)
}

// awaitBlock waits until the copy, which may become another image meanwhile, holds a block.
func (p *Place) awaitBlock(v *Volume, at uint64, want []byte) {
	p.r.Helper()
	got := make([]byte, len(want))
	p.r.await(20*time.Millisecond, func() string {
		// The name's object holds the image's id: a u32 length and so many bytes.
		id := make([]byte, 64)
		n, err := p.there.Read("rbd_id."+v.name, id, 0)
		p.looked(n, err)
		if err != nil || n < 4 {
			return fmt.Sprintf("%s is not there (%v)", v.name, err)
		}
		v.copy = string(id[4:n])
		oid, in := v.object(at)
		n, err = p.there.Read(oid, got, in)
		p.looked(n, err)
		if err != nil || string(got[:n]) != string(want) {
			return fmt.Sprintf("%s has not got its block back (%v)", v.name, err)
		}
		return ""
	})
}

// awaitReplaying waits until the status says that the image is replayed.
func (r *Round) awaitReplaying(v *Volume) {
	r.Helper()
	r.await(200*time.Millisecond, func() string {
		out, err := harness.Try(r.Pair.Secondary, "rbd", "mirror", "image", "status", "--format", "json", v.place.pool.Spec()+"/"+v.name)
		var s harness.Status
		if err == nil {
			err = json.Unmarshal([]byte(out), &s)
		}
		if err != nil || !strings.HasSuffix(s.State, "replaying") {
			return fmt.Sprintf("%s: %+v, %v", v.name, s, err)
		}
		return ""
	})
}

// replays says that the mirror has made its copy and goes by the journal.
func (p progress) replays() bool { return p.registered && p.peer.State == journal.PeerReplaying }
