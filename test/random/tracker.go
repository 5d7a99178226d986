package random

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// tracker asks a site's daemon twice a second what it does, and so finds out how long images are not replayed after a
// fault, and how much memory the processes take.
type tracker struct {
	mu        sync.Mutex
	daemon    *harness.Daemon
	cluster   *lab.Cluster
	replaying map[string]int  // the worker, by the image's global id, when last asked
	missing   map[string]blow // images that replayed when something struck them, and do not yet again
	took      [faultKinds][]time.Duration

	daemonPeak, workerPeak int64 // bytes
}

// blow is what struck an image.
type blow struct {
	kind FaultKind
	at   time.Time
}

// everyWorker stands for the index of a worker.
const everyWorker = -1

// track starts a tracker that ends with the test.
func track(t testing.TB) *tracker {
	k := &tracker{replaying: map[string]int{}, missing: map[string]blow{}}
	over := make(chan struct{})
	go func() {
		defer close(over)
		for t.Context().Err() == nil {
			k.ask(t.Context())
			select {
			case <-t.Context().Done():
			case <-time.After(500 * time.Millisecond):
			}
		}
	}()
	t.Cleanup(func() { <-over })
	return k
}

// follow names the daemon to ask from now on.
func (k *tracker) follow(d *harness.Daemon, c *lab.Cluster) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.daemon, k.cluster = d, c
}

// ask asks once. A daemon that does not answer is dead, or busy: nothing is known then.
func (k *tracker) ask(ctx context.Context) {
	k.mu.Lock()
	daemon, cluster := k.daemon, k.cluster
	k.mu.Unlock()
	if daemon == nil || harness.TestsUpstream() {
		return
	}
	r, err := daemon.Ask(ctx, cluster)
	if err != nil {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.daemonPeak = max(k.daemonPeak, harness.PeakRSS(r.PID))
	now := map[string]int{}
	for _, w := range r.Workers {
		k.workerPeak = max(k.workerPeak, harness.PeakRSS(w.PID))
		if w.State != report.WorkerReady {
			continue
		}
		for _, p := range w.Pools {
			for _, image := range p.Images {
				if image.State != "replaying" {
					continue
				}
				now[image.GlobalID] = w.Index
				if b, ok := k.missing[image.GlobalID]; ok && w.LastTold.After(b.at) {
					k.took[b.kind] = append(k.took[b.kind], r.Taken.Sub(b.at))
					delete(k.missing, image.GlobalID)
				}
			}
		}
	}
	k.replaying = now
}

// struck says that a worker was struck, or every one, a moment ago.
func (k *tracker) struck(kind FaultKind, worker int) { k.struckSince(kind, worker, time.Now()) }

// struckSince says when that was.
func (k *tracker) struckSince(kind FaultKind, worker int, at time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, owner := range k.replaying {
		if owner == worker || worker == everyWorker {
			k.missing[id] = blow{kind, at}
		}
	}
}

// forget takes images that are still missing for ones that were removed, or belong to the other site now. Whoever calls
// it knows that all that are left replay.
func (k *tracker) forget() {
	k.mu.Lock()
	defer k.mu.Unlock()
	clear(k.missing)
}

// recoveries are the times that images took to replay again, by what had struck them.
func (k *tracker) recoveries() [faultKinds][]time.Duration {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.took
}

// describe sums up how long images took.
func describe(took []time.Duration) string {
	slices.Sort(took)
	return fmt.Sprintf("%d images replayed again after %.1f s (median), %.1f s (most)", len(took),
		took[len(took)/2].Seconds(), took[len(took)-1].Seconds())
}
