package bench

import (
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
)

// idleLooks is the time for which idle processor time is measured; settling is how long the daemon is left alone before.
const (
	idleLooks = 20 * time.Second
	settling  = 10 * time.Second
)

// idleCases measure what images cost that nobody writes to.
func idleCases() []Case {
	idle := func(images int) Case {
		return Case{
			Name: fmt.Sprintf("idle/%d", images), About: fmt.Sprintf("a daemon with %d images: start, rest, burst, rest", images),
			Sides: []Side{Ours, Upstream}, Turn: func(r *Round) { r.idle(images) },
		}
	}
	return []Case{idle(0), idle(200), idle(1000)}
}

// burst is what each image gets at once: 1.3 MB.
var burst = backlog{writes: 20, bytes: 64 * kib}

// idle lets the daemon copy so many images from its start on, and measures it at rest, after a burst, and at rest again.
func (r *Round) idle(images int) {
	const size = 4 * mib
	p := r.newPlace(lab.PoolMode)
	volumes := p.createAll(images, size, true)
	began := time.Now()
	d := r.start()
	p.awaitCopied(volumes)
	r.Values["bootstrap"] = time.Since(began).Seconds()
	p.ready(volumes)
	r.sleep(settling)
	r.Values["idle_rss"] = float64(residentOf(d.Processes()...)) / mib
	a := p.open(d)
	r.sleep(idleLooks)
	b := p.open(d)
	r.Values["idle_cpu"] = 100 * (b.cpu - a.cpu).Seconds() / b.began.Sub(a.began).Seconds()
	r.Values["idle_remote_ops"] = (b.here.Ops - a.here.Ops) / b.began.Sub(a.began).Seconds()
	r.Values["idle_local_ops"] = (b.there.Ops - a.there.Ops) / b.began.Sub(a.began).Seconds()
	if images == 0 {
		return
	}
	p.each(volumes, func(n int, v *Volume) error {
		if err := burst.fill(v, uint64(n)); err != nil {
			return err
		}
		return v.mark(markDrained)
	})
	p.awaitMark(volumes, markDrained)
	p.awaitCommitted(volumes)
	r.Values["burst_rss"] = float64(residentOf(d.Processes()...)) / mib
	r.Values["peak_rss"] = float64(peakOf(d.Processes()...)) / mib
	p.assertEqual(volumes...)
}
