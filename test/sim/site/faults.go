package site

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/leader"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// weather is how much goes wrong at the moment. Probabilities are of each operation.
type weather struct {
	fail, hide float64       // not performed; performed, and the answer lost
	slow       float64       // takes long, each way
	slowness   time.Duration // how long at most
	lost       float64       // a notification; as many come twice, and as many late
}

// faults decides what becomes of the operations of the workers.
type faults struct {
	seed uint64

	mu    sync.Mutex
	now   weather
	whose map[*mem.Client]*worker // on other connections nothing goes wrong
	stall chan struct{}           // nil, or closed when the cluster goes on
	seen  map[uint64]uint64       // how often an operation came that looked like this
	// struck is asked of each write of the image map, before it is sent.
	struck func(w *worker, op mem.Op)
}

func newFaults(seed uint64) *faults {
	return &faults{seed: seed, whose: map[*mem.Client]*worker{}, seen: map[uint64]uint64{}}
}

func (f *faults) with(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

func (f *faults) worker(c *mem.Client) *worker {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.whose[c]
}

// partOf is where an object is.
func partOf(object string) part {
	switch {
	case object == membership.Object:
		return members
	case object == leader.Object:
		return leaders
	case strings.HasPrefix(object, headerPrefix):
		return headers
	}
	return contents
}

// Judge implements mem.Faults.
func (f *faults) Judge(op mem.Op) mem.Verdict {
	w := f.worker(op.Client)
	if w == nil {
		return mem.Verdict{}
	}
	rng := f.draw(op, w.life)
	if f.struck != nil && isDecision(op) {
		f.struck(w, op)
	}
	if op.Kind == mem.Deliver {
		return f.deliver(w, rng)
	}
	v := f.reach(w, partOf(op.Object), rng)
	return mem.Verdict{Delay: v.delay, Until: v.until, Fail: v.fail, Late: v.late, Hide: v.hide}
}

// deliver is what becomes of a notification.
func (f *faults) deliver(w *worker, rng *rand.Rand) mem.Verdict {
	f.mu.Lock()
	now := f.now
	f.mu.Unlock()
	lost, late, short := rng.Float64(), rng.Float64(), latency(rng)
	if !w.runs(rng) {
		return mem.Verdict{Fail: mem.ErrCrashed}
	}
	v := mem.Verdict{Delay: short}
	switch {
	case lost < now.lost || w.cutFrom(everything) != nil:
		v.Fail = errSilent
	case lost < 2*now.lost:
		v.Twice = true
	case lost < 3*now.lost:
		v.Delay += time.Duration(late * float64(5*time.Second))
	}
	return v
}

// reach is what becomes of an operation of a worker on a part of the cluster. It returns
// when the worker runs and has come to send it.
func (f *faults) reach(w *worker, to part, rng *rand.Rand) (v fate) {
	// Always the same number of draws.
	fail, hide, slow, side, long := rng.Float64(), rng.Float64(), rng.Float64(), rng.IntN(2), rng.Float64()
	hangs, lands, wait := rng.IntN(2) == 0, rng.IntN(2) == 0, time.Duration(rng.Float64()*float64(5*time.Second))
	again := rand.New(rand.NewPCG(rng.Uint64(), 0))
	if !w.runs(rng) {
		return fate{fail: mem.ErrCrashed}
	}
	f.mu.Lock()
	now, stall := f.now, f.stall
	f.mu.Unlock()
	v.delay, v.late = latency(rng), latency(rng)
	if healed := w.cutFrom(to); healed != nil {
		w.disturbed()
		if !hangs {
			return fate{delay: wait, fail: errSilent}
		}
		v.until = after(healed, latency(again))
		if !lands { // otherwise it is on its way, and arrives in the end
			v.fail = errSilent
		}
		return v
	}
	if stall != nil {
		v.until = after(stall, latency(again))
		return v
	}
	if slow < now.slow {
		w.disturbed()
		if took := time.Duration(long * float64(now.slowness)); side == 0 {
			v.delay += took
		} else {
			v.late += took
		}
	}
	switch {
	case fail < now.fail:
		w.disturbed()
		v.fail = errSilent
	case hide < now.hide:
		w.disturbed()
		v.hide = errSilent
	}
	return v
}

// after is closed a while after another.
func after(c <-chan struct{}, d time.Duration) <-chan struct{} {
	then := make(chan struct{})
	go func() {
		<-c
		time.Sleep(d)
		close(then)
	}()
	return then
}

// dice gives dice that depend only on what they are for.
func (f *faults) dice(who uint64, what string) *rand.Rand {
	return f.draw(mem.Op{Object: what}, who)
}

// draw gives the dice for an operation: the same for the same operation, whatever else
// happens at that moment.
func (f *faults) draw(op mem.Op, who uint64) *rand.Rand {
	key := fingerprint(op, who)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.seen[key]++
	return rand.New(rand.NewPCG(f.seed^key, f.seen[key]))
}

// fingerprint is who does what.
func fingerprint(op mem.Op, who uint64) uint64 {
	h := fnv.New64a()
	number := func(n uint64) {
		var b [8]byte
		binary.LittleEndian.PutUint64(b[:], n)
		_, _ = h.Write(b[:])
	}
	text := func(s string) { _, _ = h.Write([]byte(s)); number(uint64(len(s))) }
	number(who)
	text(string(op.Kind))
	text(op.Namespace)
	text(op.Object)
	text(string(op.Payload))
	number(op.Cookie)
	if op.Write != nil {
		for _, s := range op.Write.Steps {
			number(uint64(s.Kind))
			text(string(s.Data))
			text(s.Call.Method)
			text(string(s.Call.In))
			number(uint64(len(s.Pairs)))
		}
	}
	if op.Read != nil {
		for _, s := range op.Read.Steps {
			number(uint64(s.Kind))
			text(s.After)
			text(s.Call.Method)
			text(string(s.Call.In))
		}
	}
	return h.Sum64()
}
