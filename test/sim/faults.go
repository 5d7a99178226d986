package sim

import (
	"encoding/binary"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// weather is how much goes wrong at the moment. Probabilities are of each operation.
type weather struct {
	fail, hide float64       // not performed; performed, and the answer lost
	slow       float64       // takes long, each way
	slowness   time.Duration // how long at most
	lost       float64       // a notification; as many come twice
	full       syscall.Errno // what writes to the local cluster get; 0: there is room
}

// faults decides what becomes of the operations of a cluster's clients.
type faults struct {
	seed uint64
	mu   sync.Mutex
	now  weather
	// whose are the workers' connections. On others nothing goes wrong.
	whose map[*mem.Client]*worker
	// refused are connections that could not give a lock back.
	refused map[*mem.Client]bool
	seen    map[uint64]uint64 // how often an operation came that looked like this
}

func newFaults(seed uint64) *faults {
	return &faults{seed: seed, whose: map[*mem.Client]*worker{}, refused: map[*mem.Client]bool{}, seen: map[uint64]uint64{}}
}

func (f *faults) set(w weather) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = w
}

func (f *faults) worker(c *mem.Client) *worker {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.whose[c]
}

// Judge implements mem.Faults.
func (f *faults) Judge(op mem.Op) mem.Verdict {
	w := f.worker(op.Client)
	if w == nil {
		return mem.Verdict{}
	}
	local := op.Client == w.local
	rng := f.draw(op, w.life*2+b2i(local))
	f.mu.Lock()
	now := f.now
	f.mu.Unlock()
	// Always the same number of draws.
	fail, hide, slow, lost := rng.Float64(), rng.Float64(), rng.Float64(), rng.Float64()
	// Operations reach their object one after the other, however many are sent at once.
	for again := true; again; again = w.isFrozen() {
		if !w.runs() {
			return mem.Verdict{Fail: mem.ErrCrashed}
		}
		time.Sleep(latency(rng)) // also when a whole process goes on
	}
	v := mem.Verdict{Late: latency(rng)}
	long := time.Duration(rng.Float64() * float64(now.slowness))
	side := rng.IntN(2)
	if slow < now.slow {
		if side == 0 {
			v.Delay += long
		} else {
			v.Late += long
		}
	}
	if op.Kind == mem.Deliver {
		switch {
		case lost < now.lost:
			v.Fail = syscall.ETIMEDOUT
		case lost < 2*now.lost:
			v.Twice = true
		}
		return v
	}
	switch {
	case now.full != 0 && local && op.Kind == mem.Write && slow < 0.5:
		v.Fail = now.full
		f.refuse(op)
	case fail < now.fail:
		v.Fail = syscall.ETIMEDOUT
	case hide < now.hide:
		v.Hide = syscall.ETIMEDOUT
	}
	return v
}

// refuse notes that a full disk has kept a worker from giving a lock back. Where nobody
// opens the image again, it keeps it.
func (f *faults) refuse(op mem.Op) {
	for _, s := range op.Write.Steps {
		if s.Call.Class == "lock" && s.Call.Method == "unlock" {
			f.mu.Lock()
			f.refused[op.Client] = true
			f.mu.Unlock()
		}
	}
}

// latency is that of an operation on a cluster that is well. The nanoseconds see to it
// that no two operations end at the same moment.
func latency(rng *rand.Rand) time.Duration {
	return 50*time.Microsecond + time.Duration(rng.ExpFloat64()*float64(300*time.Microsecond))
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
	text(op.Object)
	text(string(op.Payload))
	number(op.Cookie)
	if op.Write != nil {
		for _, s := range op.Write.Steps {
			number(uint64(s.Kind))
			number(s.Offset)
			number(s.Length)
			text(string(s.Data))
			text(s.Call.Method)
			text(string(s.Call.In))
		}
	}
	if op.Read != nil {
		for _, s := range op.Read.Steps {
			number(uint64(s.Kind))
			number(s.Offset)
			number(s.Length)
			text(s.After)
			text(s.Call.Method)
			text(string(s.Call.In))
		}
	}
	return h.Sum64()
}

func b2i(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}
