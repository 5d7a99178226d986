package replayer_test

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/supervision"
	"github.com/rbdwarden/rbdwarden/supervision/memory"
	"github.com/rbdwarden/rbdwarden/supervision/pace"
)

// limited are limits that a test can change.
type limited struct {
	replay, sync *pace.Bucket
	own          atomic.Pointer[config.ImageLimits] // as the metadata said last
	left         atomic.Int64
}

func newLimited(replay, sync int64) *limited {
	return &limited{replay: pace.NewBucket(replay), sync: pace.NewBucket(sync)}
}

func (l *limited) paced() replayer.Paced {
	return replayer.Paced{
		Replay: pace.NewChain(pace.Link{Scope: pace.Daemon, Bucket: l.replay}), Sync: pace.NewChain(pace.Link{Scope: pace.Image, Bucket: l.sync}),
		Own: func(set config.ImageLimits) { l.own.Store(&set) }, Leave: func() { l.left.Add(1) },
	}
}

// write journals a write of so many bytes.
func (s *scene) writeBytes(length int) {
	offset := s.rng.Uint64N(imageSize - uint64(length))
	data := make([]byte, length)
	fill(s.rng, data)
	s.append(wire.AioWrite{Offset: offset, Length: uint64(length), Data: data})
	copy(s.model[offset:], data)
}

// A replay takes as long as its limit says, its status says why, and nobody takes it for one
// that hangs; when the limit is lifted it is done at once.
func TestLimitedReplay(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const rate = 20_000
		l := newLimited(0, 0)
		s := newScene(t, 1, false)
		s.writeBytes(512)
		s.pace, s.patience = l.paced, supervision.Patience{Report: 300 * time.Millisecond, Restart: time.Second, Grace: time.Second}
		w := s.start()
		s.caughtUp(w)
		l.replay.SetRate(rate)
		for range 25 {
			s.writeBytes(20_000)
		}
		began, named := time.Now(), false
		for s.behind() != "" {
			said := w.said()
			if strings.Contains(said.Description, "no progress") || strings.Contains(said.Description, "stalled") || said.Restarts > 0 {
				t.Fatalf("a limit was taken for a hang: %+v", said)
			}
			named = named || said.HeldBack == "the daemon's replay limit, of which this worker has 20000 bytes a second" && strings.Contains(said.Description, `"held_back_by":"the daemon's`)
			if time.Since(began) > time.Minute {
				t.Fatalf("never caught up: %+v", said)
			}
			time.Sleep(20 * time.Millisecond)
		}
		if d := time.Since(began); d < 23*time.Second || d > 27*time.Second {
			t.Errorf("500,000 bytes at %d a second took %v", rate, d)
		}
		if !named {
			t.Error("the status has never said what held the image back")
		}
		for range 50 {
			s.writeBytes(20_000)
		}
		time.Sleep(time.Second)
		if s.behind() == "" {
			t.Error("not held back any more")
		}
		began = time.Now()
		l.replay.SetRate(0)
		s.caughtUp(w)
		if d := time.Since(began); d > time.Second {
			t.Errorf("caught up %v after the limit was lifted", d)
		}
		s.stop(w)
		s.equal()
		if l.left.Load() == 0 {
			t.Error("the image has never left its limits")
		}
	})
}

// Who waits for a limit is stopped at once, and everything that was applied is committed.
func TestStopOfALimitedImage(t *testing.T) {
	for _, sync := range []bool{false, true} {
		inBubble(t, func(t *testing.T) {
			l := newLimited(0, 0)
			s := newScene(t, 1, false)
			s.writeBytes(512)
			s.pace = l.paced
			if sync {
				l.sync.SetRate(1000)
			}
			w := s.start()
			if !sync {
				s.caughtUp(w)
				l.replay.SetRate(1000)
			}
			for range 20 {
				s.writeBytes(20_000)
			}
			time.Sleep(5 * time.Second)
			if said := w.said(); said.HeldBack == "" {
				t.Errorf("not held back: %+v", said)
			}
			began := time.Now()
			s.stop(w)
			if d := time.Since(began); d > time.Second {
				t.Errorf("the stop took %v", d)
			}
			l.replay.SetRate(0)
			l.sync.SetRate(0)
			w = s.start()
			s.caughtUp(w)
			s.stop(w)
			s.equal()
		})
	}
}

// A first copy takes as long as its limit says, by what it reads.
func TestLimitedSync(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		const rate, few = 20_000, 6
		l := newLimited(0, rate)
		s := newScene(t, 1, false)
		s.writeBytes(512)
		s.pace, s.patience = l.paced, supervision.Patience{Report: 300 * time.Millisecond, Restart: time.Second, Grace: time.Second}
		for i := range few { // objects with little in them
			at := imageSize - (i+1)<<objectOrder
			fill(s.rng, s.model[at:at+512])
			check(t, s.librbd("r1").with(t.Context(), func(im *image.Image) error {
				_, err := im.Apply(t.Context(), []image.IO{{Kind: image.Write, Offset: uint64(at), Length: 512, Data: s.model[at : at+512]}})
				return err
			}))
		}
		w := s.start()
		for began := time.Now(); time.Since(began) < 20*time.Second; time.Sleep(100 * time.Millisecond) {
			said, passed := w.said(), time.Since(began)
			if strings.Contains(said.Description, "no progress") {
				t.Fatalf("a limit was taken for a hang: %+v", said)
			}
			if held := "the image's sync limit of 20000 bytes a second"; passed > 5*time.Second &&
				(said.HeldBack != held || !strings.Contains(said.Description, "; held back by "+held)) {
				t.Fatalf("it does not say what holds it back: %+v", said)
			}
			// The first object passes, and what is taken counts before it is read.
			if most := rate*passed.Seconds() + 2<<objectOrder; float64(l.sync.Use().Bytes) > most {
				t.Fatalf("%d bytes within %v", l.sync.Use().Bytes, passed)
			}
		}
		l.sync.SetRate(400_000)
		s.caughtUp(w)
		if u := l.sync.Use(); u.Bytes != imageSize*3/4+few*512 {
			t.Errorf("%d bytes were counted, want %d", u.Bytes, imageSize*3/4+few*512)
		}
		s.stop(w)
		s.equal()
	})
}

// An image that waits for its limit leaves the memory to others.
func TestALimitedImageHoldsNoMemory(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := memory.NewBudget(0) // all is overdrawn, by one at a time
		b.SetReserve(0)
		start := func(seed uint64, pace func() replayer.Paced) (*scene, *worker) {
			s := newScene(t, seed, false)
			s.writeBytes(512)
			s.credit, s.urgent, s.pace = func() replayer.Credit { return b.Client() }, func() replayer.Credit { return b.UrgentClient() }, pace
			w := s.start()
			s.caughtUp(w)
			return s, w
		}
		l := newLimited(0, 0)
		slow, slowly := start(1, l.paced)
		fast, fastly := start(2, nil)
		l.replay.SetRate(100)
		for range 200 { // many in one read, of which few are due at a time
			slow.writeBytes(2000)
		}
		synctest.Wait()
		time.Sleep(10 * time.Second) // it waits for minutes, for what it had at first
		for range 20 {
			fast.writeBytes(60_000)
		}
		began := time.Now()
		fast.caughtUp(fastly)
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("the other image needed %v", d)
		}
		if slow.behind() == "" {
			t.Error("the slow one was not held back")
		}
		l.replay.SetRate(0)
		slow.caughtUp(slowly)
		fast.stop(fastly)
		slow.stop(slowly)
		slow.equal()
		fast.equal()
	})
}

// A limited image reads little ahead.
func TestALimitedImageReadsLittleAhead(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b, l := memory.NewBudget(64<<20), newLimited(0, 0)
		s := newScene(t, 1, false)
		s.writeBytes(512)
		s.credit, s.urgent, s.pace = func() replayer.Credit { return b.Client() }, func() replayer.Credit { return b.UrgentClient() }, l.paced
		w := s.start()
		s.caughtUp(w)
		l.replay.SetRate(10_000)
		for range 800 {
			s.writeBytes(4000)
		}
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			if held := b.State().Used; held > 600<<10 {
				t.Fatalf("%d bytes are held", held)
			}
		}
		l.replay.SetRate(0)
		s.caughtUp(w)
		s.stop(w)
		s.equal()
	})
}

// What limits an image by its metadata comes with its journal.
func TestLimitsOfMetadata(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		l := newLimited(0, 0)
		s := newScene(t, 1, false)
		s.writeBytes(512)
		s.pace = l.paced
		w := s.start()
		s.caughtUp(w)
		s.op++
		s.append(wire.MetadataSet{Op: s.op, Key: "rbd_warden_replay_bytes_per_second", Value: "20M"})
		s.append(wire.OpFinish{Op: s.op})
		s.caughtUp(w)
		s.writeBytes(512)
		s.caughtUp(w)
		if own := l.own.Load(); own == nil || (*own)[config.ReplayLimit] != 20<<20 {
			t.Errorf("heard %v", own)
		}
		s.stop(w)
	})
}

// Whatever fails, dies or comes late, with limits that change all the time: the copy is right
// in the end.
func TestReplaySurvivesWithLimits(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+uint64(*seeds)/2; seed++ {
		inBubble(t, func(t *testing.T) {
			l := newLimited(0, 1<<20)
			s := newScene(t, seed, true)
			s.pace = l.paced
			rng := rand.New(rand.NewPCG(seed, 2))
			ctx, cancel := context.WithCancel(t.Context())
			var all sync.WaitGroup
			all.Go(func() {
				rng := rand.New(rand.NewPCG(seed, 3))
				for ctx.Err() == nil {
					time.Sleep(time.Duration(rng.Int64N(int64(200 * time.Millisecond))))
					for _, b := range []*pace.Bucket{l.replay, l.sync} {
						b.SetRate([]int64{0, 200_000, 1 << 20, 20 << 20}[rng.IntN(4)])
					}
				}
			})
			defer all.Wait()
			defer cancel()
			w := s.start()
			for range 6 {
				for range 15 {
					s.happen()
				}
				time.Sleep(time.Duration(rng.Int64N(int64(300 * time.Millisecond))))
				if rng.IntN(3) == 0 {
					w.die()
					w = s.start()
				}
			}
			s.caughtUp(w)
			s.stop(w)
			s.equal()
		})
	}
}
