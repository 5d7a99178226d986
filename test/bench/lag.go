package bench

import (
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
)

// steady is a load of small writes to some of a pool's images, at an even pace.
type steady struct {
	images, written int // so many images, so many of them are written to
	size            uint64
	rate            int // writes a second, to all together
	length          time.Duration
}

// lagCases measure how long a write takes until it can be read on the other side.
func lagCases() []Case {
	lag := func(name, about string, of func(Scale) steady) Case {
		return Case{Name: "lag/" + name, About: about, Sides: []Side{Ours, Upstream}, Turn: func(r *Round) { r.lag(of(r.Scale)) }}
	}
	seconds := func(s Scale, small, full int) time.Duration { return time.Duration(s.of(small, full)) * time.Second }
	return []Case{
		lag("one", "4 KiB writes at an even pace to one image", func(s Scale) steady {
			return steady{images: 1, written: 1, size: 64 * mib, rate: 100, length: seconds(s, 10, 30)}
		}),
		lag("few", "4 KiB writes at an even pace to ten images", func(s Scale) steady {
			return steady{images: 10, written: 10, size: 16 * mib, rate: 100, length: seconds(s, 10, 30)}
		}),
		lag("crowd", "4 KiB writes at an even pace to a tenth of many images", func(s Scale) steady {
			return steady{images: s.of(50, 200), written: s.of(5, 20), size: 4 * mib, rate: 100, length: seconds(s, 10, 30)}
		}),
		lag("thousand", "4 KiB writes at an even pace to a tenth of a great many images", func(s Scale) steady {
			return steady{images: s.of(200, 1000), written: s.of(20, 100), size: 4 * mib, rate: 200, length: seconds(s, 10, 30)}
		}),
	}
}

// lag writes at an even pace and looks at the other side for each write.
func (r *Round) lag(s steady) {
	p := r.newPlace(lab.PoolMode)
	volumes := p.createAll(s.images, s.size, true)
	d := r.start()
	p.ready(volumes)

	lanes := make([]*lane, s.written)
	for i := range lanes {
		lanes[i] = &lane{v: volumes[i*s.images/s.written]}
		r.must(lanes[i].v.open())
	}
	p.warm(lanes)
	a := p.open(d)
	writes, all := r.pace(s, lanes)
	for _, l := range lanes {
		r.must(l.v.close())
	}
	p.awaitCommitted(volumes)
	a.close(writes, writes*block)
	p.assertEqual(volumes...)
	r.lags(all)
}

// warm writes to each image and waits for it: the first write after an open has the exclusive lock and a new tag before it.
func (p *Place) warm(lanes []*lane) {
	for _, l := range lanes {
		p.r.must(l.v.mark(markDrained))
		p.awaitMark([]*Volume{l.v}, markDrained)
	}
}

// pace writes for the time that the load lasts, waits until all is seen, and answers the lags by image, in milliseconds.
func (r *Round) pace(s steady, lanes []*lane) (writes int, all [][]float64) {
	over := make(chan struct{})
	var lookers, writers sync.WaitGroup
	var failed firstError
	for _, l := range lanes {
		lookers.Go(func() { failed.put(l.watch(over)) })
	}
	each := time.Second * time.Duration(len(lanes)) / time.Duration(s.rate)
	for n, l := range lanes {
		writers.Go(func() {
			time.Sleep(each * time.Duration(n) / time.Duration(len(lanes)))
			failed.put(l.write(r.Ctx.Done(), each, s.length))
		})
	}
	writers.Wait()
	r.await(20*time.Millisecond, func() string {
		if failed.get() != nil {
			return ""
		}
		for _, l := range lanes {
			if left := l.left(); left > 0 {
				return fmt.Sprintf("%d writes to %s cannot be read on the secondary", left, l.v.name)
			}
		}
		return ""
	})
	close(over)
	lookers.Wait()
	r.must(failed.get())
	for _, l := range lanes {
		lags := make([]float64, 0, len(l.seen))
		for _, w := range l.seen {
			lags = append(lags, float64(w.seen.Sub(w.acked).Microseconds())/1000)
		}
		slices.Sort(lags)
		writes += len(lags)
		all = append(all, lags)
	}
	return writes, all
}

// lags writes the quantiles of all lags into the round's values, and the worst image's.
func (r *Round) lags(byImage [][]float64) {
	all := slices.Concat(byImage...)
	slices.Sort(all)
	r.Values["p50"], r.Values["p99"], r.Values["worst"] = quantile(all, 0.5), quantile(all, 0.99), quantile(all, 1)
	if len(byImage) > 1 {
		var p99 []float64
		for _, lags := range byImage {
			p99 = append(p99, quantile(lags, 0.99))
		}
		slices.Sort(p99)
		r.Values["image_p99"], r.Values["image_p99_median"] = slices.Max(p99), quantile(p99, 0.5)
		r.Images = p99
	}
}
