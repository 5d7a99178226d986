package site

import (
	"math/rand/v2"
	"time"
)

// What follows keeps a worker from running, or from reaching the cluster.

// runs waits while the worker is paused, and is false when it is dead. It returns at a
// nanosecond of its own.
func (w *worker) runs(rng *rand.Rand) bool {
	for {
		w.mu.Lock()
		frozen, dead := w.frozen, w.dead
		w.mu.Unlock()
		if dead {
			return false
		}
		if frozen != nil {
			<-frozen
		}
		time.Sleep(latency(rng))
		w.mu.Lock()
		frozen, dead = w.frozen, w.dead
		w.mu.Unlock()
		if frozen == nil {
			return !dead
		}
	}
}

// freeze is SIGSTOP.
func (w *worker) freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen == nil && !w.dead {
		w.frozen, w.away = make(chan struct{}), time.Now()
	}
}

// thaw is SIGCONT.
func (w *worker) thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.troubled = time.Now()
	if w.frozen != nil {
		close(w.frozen)
		w.frozen = nil
		w.remember()
	}
}

// cutFrom is closed when the worker reaches that part of the cluster; nil if it does now.
func (w *worker) cutFrom(p part) <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut&p == 0 {
		return nil
	}
	return w.healed
}

func (w *worker) isolate(from part) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.cut == 0 && !w.dead {
		w.cut, w.healed, w.away = from, make(chan struct{}), time.Now()
	}
}

func (w *worker) heal() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.troubled = time.Now()
	if w.cut != 0 {
		w.cut = 0
		close(w.healed)
		w.remember()
	}
}

// remember tells the client what it has missed. The caller has the lock.
func (w *worker) remember() {
	if w.forgot != nil && w.frozen == nil && w.cut == 0 {
		go w.forgot()
		w.forgot = nil
	}
}

// forget has the cluster drop the watches of a worker that does not answer.
func (w *worker) forget() {
	w.mu.Lock()
	away := !w.dead && w.forgot == nil && (w.frozen != nil || w.cut&(leaders|headers|members) != 0) && time.Since(w.away) >= w.site.set.forget
	w.mu.Unlock()
	if !away {
		return
	}
	tell := w.client.ForgetWatches()
	w.mu.Lock()
	w.forgot = tell
	w.remember()
	w.mu.Unlock()
}

func (w *worker) disturbed() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.troubled = time.Now()
}

// stalled says that the cluster stood still until now. Who was in trouble when that began, or
// since, has had no chance to show that it is well again.
func (w *worker) stalled(since time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.troubled.After(since) {
		w.troubled = time.Now()
	}
}

// wellFor is for how long nothing was wrong with the worker.
func (w *worker) wellFor() time.Duration {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.dead || w.refused || w.struck || w.leaving || w.frozen != nil || w.cut != 0 {
		return 0
	}
	return time.Since(w.troubled)
}
