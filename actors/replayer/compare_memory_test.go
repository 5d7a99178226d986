package replayer_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// killAfter ends the next worker's process when its n-th write to either cluster has landed. It answers whether that has
// happened.
func (s *scene) killAfter(n int64) (killed *atomic.Bool) {
	killed = new(atomic.Bool)
	var writes atomic.Int64
	fault := mem.FaultFunc(func(op mem.Op) mem.Verdict {
		if _, ok := s.trusted.Load(op.Client); ok {
			return mem.Verdict{}
		}
		if killed.Load() { // a process is dead for both clusters at once
			return mem.Verdict{CrashBefore: true}
		}
		if op.Kind != mem.Write || writes.Add(1) != n {
			return mem.Verdict{}
		}
		killed.Store(true)
		return mem.Verdict{CrashAfter: true}
	})
	s.fault.Store(&fault)
	return killed
}

// write journals a write of whole sectors, each filled with a letter.
func (s *scene) write(sector int, letters string) {
	data := sectors(letters)
	offset := uint64(sector * 512)
	s.append(wire.AioWrite{Offset: offset, Length: uint64(len(data)), Data: data})
	copy(s.model[offset:], data)
}

// compareAndWrite journals one; whether it succeeds is up to what the image holds.
func (s *scene) compareAndWrite(sector int, compare, letters string) {
	expected, data := sectors(compare), sectors(letters)
	offset := uint64(sector * 512)
	s.append(wire.AioCompareAndWrite{Offset: offset, Length: uint64(len(data)), CompareData: expected, WriteData: data})
	if bytes.HasPrefix(s.model[offset:], expected) {
		copy(s.model[offset:], data)
	}
}

func sectors(letters string) (b []byte) {
	for _, letter := range []byte(letters) {
		b = append(b, bytes.Repeat([]byte{letter}, 512)...)
	}
	return b
}

// chain journals compare-and-writes and writes to pairs of sectors. Replayed once more from anywhere between, with what
// follows applied already, some of them end otherwise, and nothing behind them mends that.
func (s *scene) chain(rng *rand.Rand) {
	const before, after, twice, random = 0, 2, 4, 6
	s.write(before, "XX")
	s.compareAndWrite(before, "ZZ", "ZZ")
	s.write(before, "A")
	s.compareAndWrite(before, "AX", "BB") // succeeds; behind another write of the A it would fail, and leave AB

	s.write(after, "XX")
	s.append(wire.AioFlush{})
	s.compareAndWrite(after, "AX", "BB") // fails; behind the next write it would succeed, and leave AB
	s.write(after, "A")

	s.write(twice, "X")
	s.compareAndWrite(twice, "A", "B") // fails; behind the next it would succeed, and leave B
	s.compareAndWrite(twice, "X", "A")

	for pair := random; pair < random+6; pair += 2 {
		s.write(pair, "XX")
		for range 4 {
			letters := func() string { return string([]byte{"ABX"[rng.IntN(3)], "ABX"[rng.IntN(3)]}) }
			switch rng.IntN(3) {
			case 0:
				s.write(pair+rng.IntN(2), letters()[:1])
			case 1:
				s.compareAndWrite(pair, letters(), letters())
			default: // succeeds
				s.compareAndWrite(pair, string([]byte{s.model[512*pair], s.model[512*(pair+1)]}), letters())
			}
		}
	}
}

// Invariant 4: a compare-and-write is done once in effect, wherever a worker dies. The test kills one after each of its
// writes in turn, from the lock to the last commit position, behind a journal in which a compare-and-write ends otherwise
// if it, or what is before it, is replayed once more.
func TestCompareAndWriteOnceInEffect(t *testing.T) {
	const lanes = 3 // side by side, for most of the time is spent waiting for watches of the dead
	for lane := range int64(lanes) {
		t.Run(fmt.Sprintf("lane-%d", lane), func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T) {
				s := newScene(t, 3, false)
				s.write(0, "XX")
				w := s.start()
				s.caughtUp(w)
				s.stop(w)
				n := lane + 1
				for ; s.diesAfter(n); n += lanes {
				}
				if n < 20 {
					t.Errorf("the worker did %d writes only: nothing was replayed", n)
				}
			})
		})
	}
}

// diesAfter has a worker replay a chain, and another the rest of it if the first dies after its n-th write.
func (s *scene) diesAfter(n int64) (died bool) {
	s.t.Helper()
	s.chain(s.rng)
	killed := s.killAfter(n)
	w := s.start()
	for deadline := time.Now().Add(time.Minute); !killed.Load() && s.behind() != ""; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			s.t.Fatalf("write %d: neither killed nor caught up: %s", n, s.behind())
		}
	}
	died = killed.Load()
	if died {
		w.die()
		s.fault.Store(nil)
		w = s.start()
		s.caughtUp(w)
	}
	s.stop(w)
	if s.equal(); s.t.Failed() {
		s.t.Fatalf("killed after write %d", n)
	}
	return died
}
