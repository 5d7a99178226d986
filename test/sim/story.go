package sim

import (
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/messages"
)

// The story of a run: what happens, and when.

// trouble lets things happen, good and bad.
func (w *world) trouble() {
	for range w.set.actions {
		w.pause()
		w.writes()
		if !w.set.calm {
			w.misfortune()
		}
		if w.set.promote && w.rng.IntN(8) == 0 {
			w.promotion(w.primaries[w.rng.IntN(len(w.primaries))])
		}
		w.tend()
		if w.oracle.violation() != "" {
			return
		}
	}
}

// promotion promotes a copy by force, where the primary's client changes often right after another one has begun to write: what
// a new tag there makes a worker do meets the promotion.
func (w *world) promotion(p *primary) {
	if w.set.sessions {
		w.check(p.session(w.ctx))
		w.check(p.write(w.ctx))
		time.Sleep(time.Duration(w.rng.ExpFloat64() * float64(5*time.Millisecond)))
	}
	w.promote(p.model)
}

// pause lets some time pass: mostly little, so that things fall together.
func (w *world) pause() {
	d := time.Duration(w.rng.ExpFloat64() * float64(300*time.Millisecond))
	if w.rng.IntN(6) == 0 {
		d *= 40
	}
	time.Sleep(d)
}

// writes lets primaries write.
func (w *world) writes() {
	p := w.primaries[w.rng.IntN(len(w.primaries))]
	for range w.rng.IntN(12) {
		w.check(p.write(w.ctx))
	}
	if w.set.sessions && w.rng.IntN(12) == 0 {
		w.check(p.session(w.ctx))
	}
	if w.rng.IntN(3) == 0 {
		w.check(p.commit(w.ctx))
	}
}

// passing is trouble that passes by itself.
func (w *world) passing(name string, f *faults, now weather) {
	d := time.Duration(w.rng.ExpFloat64() * float64(8*time.Second))
	w.trace.Add("%s, for %v", name, d)
	f.set(now)
	w.goes.Go(func() {
		time.Sleep(d)
		f.set(weather{})
		w.trace.Add("%s is over", name)
	})
}

func (w *world) misfortune() {
	f := w.faultsHere
	if w.rng.IntN(3) == 0 {
		f = w.faultsThere
	}
	k := w.workers[w.rng.IntN(len(w.workers))]
	n := w.rng.IntN(len(w.primaries))
	m := w.primaries[n].model
	switch w.rng.IntN(20) {
	case 0, 1:
		w.passing("operations fail", f, weather{fail: 0.05, hide: 0.05, lost: 0.2})
	case 2:
		w.passing("operations are slow", f, weather{slow: 0.2, slowness: 3 * time.Second, lost: 0.1})
	case 3:
		w.passing("hardly anything works", f, weather{fail: 0.4, hide: 0.2, slow: 0.3, slowness: 20 * time.Second, lost: 0.5})
	case 4:
		w.passing("the disks are full", w.faultsHere, weather{full: []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT}[w.rng.IntN(2)]})
	case 5, 6:
		k.kill(time.Duration(w.rng.ExpFloat64() * float64(5*time.Millisecond)))
	case 7, 8:
		w.stopped(k)
	case 9:
		w.trace.Add("worker %d loses its watches", k.seat)
		k.local.LoseWatches()
	case 10:
		w.trace.Add("worker %d is blocklisted", k.seat)
		w.check(w.hereIO.Cluster().Blocklist(w.ctx, k.local.Addresses(), time.Hour))
	case 11, 12, 13:
		if !w.set.twoMakers && w.oracle.copyOf(m) == "" {
			return
		}
		w.owner[n] = w.rng.IntN(len(w.workers))
		w.trace.Add("%s is to run in worker %d", m.globalID, w.owner[n])
	case 14:
		w.trace.Add("%s is restarted", m.globalID)
		k.tell(m, messages.RestartImage{})
	case 15:
		k.tell(m, messages.NudgeImage{})
		k.tell(m, messages.FlushImage{})
	case 17:
		w.commanded(k, m)
	case 16:
		k.mu.Lock()
		k.panics = true
		k.mu.Unlock()
	case 18:
		w.usurped(n)
	case 19:
		w.flood(w.primaries[n])
	}
}

// flood has a primary write more than a worker may hold, while the cluster of the copy hardly moves.
func (w *world) flood(p *primary) {
	w.passing("all is slow here, and much is written", w.faultsHere, weather{slow: 1, slowness: 3 * time.Second})
	for range 60 {
		w.check(p.write(w.ctx))
	}
}

// usurped freezes the worker that runs an image, in the middle of what the primary has just written, until it is taken for
// dead and another one has gone on. Then it thaws.
func (w *world) usurped(n int) {
	p, k := w.primaries[n], w.workers[w.owner[n]]
	if len(w.workers) < 2 || w.oracle.copyOf(p.model) == "" && !w.set.twoMakers {
		return
	}
	for range 8 {
		w.check(p.write(w.ctx))
	}
	time.Sleep(time.Duration(w.rng.ExpFloat64() * float64(5*time.Millisecond)))
	w.freeze(k, watchTimeout+10*time.Second+time.Duration(w.rng.ExpFloat64()*float64(10*time.Second)))
	w.owner[n] = (w.owner[n] + 1) % len(w.workers)
	w.trace.Add("%s is to run in worker %d", p.globalID, w.owner[n])
	w.tend()
	for range 8 {
		w.check(p.write(w.ctx))
	}
}

// commanded has an operator stop or pause an image, and start it again: soon after, or when
// that has had its effect.
func (w *world) commanded(k *worker, m *model) {
	var stop messages.ToImage = messages.StopImage{Reason: "the simulation wants it"}
	if w.rng.IntN(2) == 0 {
		stop = messages.PauseImage{Reason: "the simulation wants it"}
	}
	d := time.Duration(w.rng.ExpFloat64() * float64(3*time.Millisecond))
	if w.rng.IntN(2) == 0 {
		d *= 1000
	}
	w.trace.Add("%s is told %T, and to start after %v", m.globalID, stop, d)
	k.tell(m, stop)
	w.goes.Go(func() {
		time.Sleep(d)
		k.tell(m, messages.StartImage{})
	})
}

// watchTimeout is how long the OSDs wait for a client that is silent.
const watchTimeout = 30 * time.Second

// stopped freezes a worker for a while.
func (w *world) stopped(k *worker) {
	d := time.Duration(w.rng.ExpFloat64() * float64(20*time.Second))
	if w.rng.IntN(3) == 0 {
		d += watchTimeout
	}
	w.freeze(k, d)
}

// freeze freezes a worker. When that takes long its watches are gone, and it does not know.
func (w *world) freeze(k *worker, d time.Duration) {
	w.trace.Add("worker %d freezes for %v", k.seat, d)
	k.freeze()
	w.goes.Go(func() {
		tell := func() {}
		if time.Sleep(min(d, watchTimeout)); d > watchTimeout {
			there, here := k.remote.ForgetWatches(), k.local.ForgetWatches()
			tell = func() { there(); here() }
			time.Sleep(d - watchTimeout)
		}
		k.thaw()
		w.trace.Add("worker %d goes on", k.seat)
		time.Sleep(10 * time.Millisecond)
		tell()
	})
}

// tend does what the daemons and their leader do: workers that died are started again,
// and images are run by whom they are given to. It may come late, so that two workers run
// an image for a while.
func (w *world) tend() {
	for seat, k := range w.workers {
		k.mu.Lock()
		fenced, dead := k.fenced, k.dead
		k.mu.Unlock()
		if fenced {
			k.kill(0)
			dead = true
		}
		if dead {
			w.startWorker(seat)
		}
	}
	for n, p := range w.primaries {
		for seat, k := range w.workers {
			switch {
			case seat == w.owner[n]:
				k.run(p.model)
			case w.rng.IntN(3) > 0:
				k.leave(p.model)
			}
		}
	}
}

// calm ends all trouble.
func (w *world) calm() {
	w.trace.Add("the trouble is over")
	w.faultsHere.set(weather{})
	w.faultsThere.set(weather{})
	for _, k := range w.workers {
		k.thaw()
		k.mu.Lock()
		k.panics = false
		k.mu.Unlock()
	}
}
