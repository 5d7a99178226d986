package bench

import (
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
)

// failoverCases measure how long images stand still when a daemon dies.
func failoverCases() []Case {
	return []Case{{
		Name: "failover/kill", About: "two daemons, one is killed: until all images are caught up again",
		Sides: []Side{Ours, Upstream}, Turn: func(r *Round) { r.failover(r.Scale.of(10, 50)) },
	}}
}

// failover kills the daemon that was started first, and leads, and writes to each image behind that.
func (r *Round) failover(images int) {
	p := r.newPlace(lab.PoolMode)
	volumes := p.createAll(images, 4*mib, true)
	first := r.start()
	p.ready(volumes)
	second := r.start()
	r.awaitBoth(p)
	select {
	case <-second.Exited():
		r.Fatalf("the second daemon has ended: %v\n%s", second.ExitError(), second.Tail())
	default:
	}
	for _, v := range volumes {
		r.must(v.open())
		r.must(v.mark(markShared))
	}
	p.awaitMark(volumes, markShared)
	began := time.Now()
	first.Kill()
	r.must(parallel(len(volumes), together, func(n int) error { return volumes[n].mark(markDrained) }))
	p.awaitMark(volumes, markDrained)
	r.Values["seconds"] = time.Since(began).Seconds()
	for _, v := range volumes {
		r.must(v.close())
	}
	p.awaitCommitted(volumes)
	r.Values["committed"] = time.Since(began).Seconds()
	p.assertEqual(volumes...)
}

// awaitBoth waits until the second daemon has its share of the images, too: until moving them has ended.
func (r *Round) awaitBoth(p *Place) {
	r.Helper()
	shares := func() map[string]int {
		n := map[string]int{}
		for _, i := range p.pool.PoolStatusOn(r, r.Pair.Secondary).Images {
			n[i.Service.InstanceID+" "+i.State]++
		}
		return n
	}
	last, since := "", time.Now()
	r.await(time.Second, func() string {
		now := fmt.Sprint(shares())
		if now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < 10*time.Second {
			return "images still move: " + now
		}
		return ""
	})
	r.Logf("before the kill: %s", last)
}
