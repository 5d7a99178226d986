package bench

import (
	"errors"
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
)

// backlog is what waits in the journals of some images.
type backlog struct {
	images  int
	size    uint64 // of each, in bytes
	writes  int    // to each
	bytes   int    // of each write
	inOrder bool
	snaps   int // one after so many writes; 0: none
}

// payload is the number of bytes that all writes carry.
func (b backlog) payload() int { return b.images * b.writes * b.bytes }

const (
	kib = 1 << 10
	mib = 1 << 20
)

// drainCases measure how fast a backlog is replayed.
func drainCases() []Case {
	drain := func(name, about string, plain bool, of func(Scale) backlog) Case {
		who := []Side{Ours, Upstream}
		if plain {
			who = append(who, Plain, Gathered)
		}
		return Case{Name: "drain/" + name, About: about, Sides: who, Turn: func(r *Round) {
			b := of(r.Scale)
			if r.Side == Plain || r.Side == Gathered {
				r.loop(b)
				return
			}
			r.drain(b)
		}}
	}
	return []Case{
		drain("rand4k", "4 KiB writes at random to one image", true, func(s Scale) backlog {
			return backlog{images: 1, size: 256 * mib, writes: s.of(4096, 30720), bytes: 4 * kib}
		}),
		drain("rand64k", "64 KiB writes at random to one image", true, func(s Scale) backlog {
			return backlog{images: 1, size: 256 * mib, writes: s.of(512, 4096), bytes: 64 * kib}
		}),
		drain("seq4m", "4 MiB writes one behind the other to one image", true, func(s Scale) backlog {
			return backlog{images: 1, size: 512 * mib, writes: s.of(16, 120), bytes: 4 * mib, inOrder: true}
		}),
		drain("images", "4 KiB writes at random to many small images", false, func(s Scale) backlog {
			return backlog{images: s.of(10, 100), size: 8 * mib, writes: s.of(50, 200), bytes: 4 * kib}
		}),
		drain("snaps", "4 KiB writes at random to one image with a snapshot now and then", false, func(s Scale) backlog {
			return backlog{images: 1, size: 64 * mib, writes: s.of(1024, 8192), bytes: 4 * kib, snaps: s.of(256, 512)}
		}),
	}
}

// marks that images get, in this order.
const (
	markReady   = 1 // the daemon replays
	markDrained = 2 // behind the backlog
	markShared  = 3 // two daemons replay
)

// drain lets the daemon replay images, stops them by the admin socket, writes the backlog, and starts them again.
func (r *Round) drain(b backlog) {
	p := r.newPlace(lab.PoolMode)
	volumes := p.createAll(b.images, b.size, true)
	d := r.start()
	p.ready(volumes)
	r.tell(d, "rbd mirror stop")
	p.each(volumes, func(n int, v *Volume) error {
		if err := b.fill(v, uint64(n)); err != nil {
			return err
		}
		return v.mark(markDrained)
	})
	for _, v := range volumes {
		if v.marked() == markDrained {
			r.Fatal("the daemon has replayed although it was stopped")
		}
	}

	a := p.open(d)
	r.tell(d, "rbd mirror start")
	p.awaitMark(volumes, markDrained)
	r.Values["seconds"] = time.Since(a.began).Seconds()
	p.awaitCommitted(volumes)
	r.Values["committed"] = time.Since(a.began).Seconds()
	a.close(b.images*b.writes, b.payload())
	p.assertEqual(volumes...)
}

// fill writes an image's part of the backlog.
func (b backlog) fill(v *Volume, seed uint64) error {
	extents := v.scatter(b.writes, b.bytes, seed)
	if b.inOrder {
		extents = v.sequence(b.writes, b.bytes)
	}
	if b.snaps == 0 {
		return v.write(extents)
	}
	for n := 0; len(extents) > 0; n++ {
		some := min(b.snaps, len(extents))
		if err := v.write(extents[:some]); err != nil {
			return err
		}
		if _, err := v.disk.CreateSnapshot(fmt.Sprintf("snap%d", n)); err != nil {
			return err
		}
		extents = extents[some:]
	}
	return nil
}

// each opens images, lets something be written to each, and closes them, some at a time.
func (p *Place) each(volumes []*Volume, do func(n int, v *Volume) error) {
	p.r.Helper()
	p.r.must(parallel(len(volumes), 4, func(n int) (err error) {
		v := volumes[n]
		if err := v.open(); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, v.close()) }()
		return do(n, v)
	}))
}

// ready waits until the daemon replays all images: it lets it replay a mark in each.
func (p *Place) ready(volumes []*Volume) {
	p.r.Helper()
	p.each(volumes, func(_ int, v *Volume) error { return v.mark(markReady) })
	p.awaitMark(volumes, markReady)
	p.awaitCommitted(volumes)
}
