package memory

import (
	"context"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/rbdwarden/rbdwarden/rhythm"
)

// Times and bounds of a rest.
const (
	restLook  = 2 * time.Second
	restCalm  = 5       // looks in a row that find little before it is a rest
	restRate  = 1 << 20 // bytes a second that are little
	restGrows = 25      // per cent that the heap may grow by before it is collected, at rest
)

// Rest has Go's collector keep the heap close to what is alive while the process allocates little,
// until ctx ends. A collection of a small heap costs next to nothing when it comes every ten seconds; at work
// it would come every few milliseconds, so the usual bound holds then. Who sets GOGC decides for
// both, and this does nothing.
func Rest(ctx context.Context, getenv func(string) string) {
	if getenv("GOGC") != "" {
		return
	}
	ticker := rhythm.NewTicker(restLook)
	defer ticker.Stop()
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	collected := collections()
	var (
		r    rest
		busy int // the collector's usual bound
	)
	look := r.look
	for {
		metrics.Read(allocated)
		switch look(time.Now(), allocated[0].Value.Uint64()) {
		case restBegins:
			busy = debug.SetGCPercent(restGrows)
		case restEnds:
			debug.SetGCPercent(busy)
		}
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			ticker.Next()
			look = r.look
		case <-collected: // work that has begun shows here first
			look = r.glance
		}
	}
}

// collections gets something after each of Go's collections.
func collections() <-chan struct{} {
	c := make(chan struct{}, 1)
	var await func()
	await = func() {
		type garbage struct{ _ [32]byte }
		runtime.SetFinalizer(&garbage{}, func(*garbage) {
			select {
			case c <- struct{}{}:
			default:
			}
			await()
		})
	}
	await()
	return c
}

// turn is what a look finds to do.
type turn int

const (
	restGoesOn turn = iota // or work
	restBegins
	restEnds
)

// rest decides from what was allocated in all, look by look. Its zero value is at work.
type rest struct {
	at    time.Time // of the last look
	bytes uint64
	calm  int // looks in a row
}

func (r *rest) look(now time.Time, bytes uint64) turn {
	first, little := r.at.IsZero(), r.little(now, bytes)
	r.at, r.bytes = now, bytes
	switch {
	case first:
	case little:
		if r.calm++; r.calm == restCalm {
			return restBegins
		}
	default:
		rested := r.calm >= restCalm
		r.calm = 0
		if rested {
			return restEnds
		}
	}
	return restGoesOn
}

// glance is a look between two, which ends a rest, and changes nothing else.
func (r *rest) glance(now time.Time, bytes uint64) turn {
	if r.calm < restCalm || r.little(now, bytes) {
		return restGoesOn
	}
	return r.look(now, bytes)
}

func (r *rest) little(now time.Time, bytes uint64) bool {
	return float64(bytes-r.bytes) < restRate*now.Sub(r.at).Seconds()
}
