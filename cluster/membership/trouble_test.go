package membership

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// outsider is a client that is no member.
func (s *site) outsider() rados.IOContext {
	s.t.Helper()
	io, err := s.store.Connect().Open(context.Background(), "rbd", "")
	if err != nil {
		s.t.Fatal(err)
	}
	return io
}

func (s *site) write(fill func(op *rados.WriteOp)) {
	s.t.Helper()
	var op rados.WriteOp
	fill(&op)
	if err := s.outsider().Write(context.Background(), Object, &op); err != nil {
		s.t.Fatal(err)
	}
}

func (p *process) isLost() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.lost) == 0 {
		return nil
	}
	return p.lost[0]
}

// A member that was cut off and given up finds, when it is back, that it was fenced: its
// lease had run out before anybody took it for dead, and it says so once.
func TestAPartitionedMember(t *testing.T) {
	run(t, func(s *site) {
		a, b := s.start("a"), s.start("b")
		time.Sleep(5 * time.Second)
		s.with(func() { s.cut[b.client] = true })
		s.until(3*time.Second, "a takes b for dead", func() bool {
			dead := a.View().KnownDead("b")
			if dead && b.Valid() {
				t.Error("b is taken for dead, and still valid")
			}
			return dead
		})
		if err := a.Fence(context.Background(), b.ID()); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		if v := b.View(); !v.Frozen || len(v.Members) != 2 {
			t.Errorf("b, which sees nothing, has %+v", v)
		}
		s.with(func() { delete(s.cut, b.client) })
		s.until(4*time.Second, "b is lost", func() bool { return rados.Classify(orNil(b.isLost())) == rados.Fenced })
		<-b.ended
		if b.err == nil || len(b.lost) != 1 || b.Valid() {
			t.Errorf("b: %v, lost %v", b.err, b.lost)
		}
		s.assertLiving(a, "a")
	})
}

func orNil(err error) error {
	if err == nil {
		return errors.New("nothing")
	}
	return err
}

// A member that was cut off for a while, but not given up, goes on.
func TestACutIsNoDeath(t *testing.T) {
	run(t, func(s *site) {
		a, b := s.start("a"), s.start("b")
		time.Sleep(5 * time.Second)
		s.with(func() { s.cut[b.client] = true })
		time.Sleep(20 * time.Second)
		if !a.View().KnownDead("b") || b.Valid() || !b.View().Frozen {
			t.Error("b is not missed")
		}
		if err := b.Fence(context.Background(), a.ID()); !errors.Is(err, ErrNoMember) {
			t.Errorf("b, which sees nothing, fences: %v", err)
		}
		s.with(func() { delete(s.cut, b.client) })
		s.until(4*time.Second, "b is back", func() bool { return a.living() == "[a b]" && b.Valid() && !b.View().Frozen })
		if err := a.Fence(context.Background(), b.ID()); !errors.Is(err, ErrAlive) {
			t.Errorf("b is fenced although it is back: %v", err)
		}
		if b.isLost() != nil {
			t.Error(b.isLost())
		}
	})
}

// The sign of life that comes between the finding and the fencing saves its sender.
func TestALateBeatSaves(t *testing.T) {
	run(t, func(s *site) {
		a, b := s.start("a"), s.start("b")
		time.Sleep(5 * time.Second)
		s.with(func() { s.cut[b.client] = true })
		s.until(3*time.Second, "a takes b for dead", func() bool { return a.View().KnownDead("b") })
		s.write(func(op *rados.WriteOp) {
			op.SetOmap(map[string][]byte{beatPrefix + b.ID(): bytesOf(beat{99999, 1})})
		})
		if err := a.Fence(context.Background(), b.ID()); !errors.Is(err, ErrAlive) {
			t.Errorf("%v", err)
		}
		if got := s.store.Blocklisted(); len(got) > 0 {
			t.Error("blocklisted", got)
		}
		s.with(func() { delete(s.cut, b.client) })
	})
}

// The whole cluster stalls: everybody's view freezes, nobody leaves it, and nobody is taken
// for dead afterwards.
func TestAStallKillsNobody(t *testing.T) {
	run(t, func(s *site) {
		for _, name := range []string{"a", "b", "c", "d"} {
			s.start(name)
		}
		time.Sleep(5 * time.Second)
		for _, d := range []time.Duration{time.Second, 1900 * time.Millisecond, 2100 * time.Millisecond, 8 * time.Second, 40 * time.Second} {
			stall := make(chan struct{})
			s.with(func() { s.stall = stall })
			time.Sleep(d)
			if d > 3*time.Second {
				for _, p := range s.all {
					if v := p.View(); !v.Frozen || len(v.Members) != 4 {
						t.Errorf("%s in a stall of %v: %+v", p.name, d, v)
					}
				}
			}
			s.with(func() { s.stall = nil })
			close(stall)
			time.Sleep(15 * time.Second)
			for _, p := range s.all {
				s.assertLiving(p, "a", "b", "c", "d")
				if p.View().Frozen || !p.Valid() || p.isLost() != nil {
					t.Errorf("%s after a stall of %v: frozen %v, valid %v, lost %v", p.name, d, p.View().Frozen, p.Valid(), p.isLost())
				}
				p.mu.Lock()
				for _, v := range p.views {
					if len(v.Dead) > 0 {
						t.Errorf("%s took somebody for dead: %v", p.name, v.Dead)
					}
				}
				p.mu.Unlock()
			}
		}
	})
}

// A slow cluster makes heartbeats late, not rare.
func TestASlowClusterKillsNobody(t *testing.T) {
	run(t, func(s *site) {
		a, b := s.start("a"), s.start("b")
		time.Sleep(5 * time.Second)
		s.with(func() {
			s.fault = func(mem.Op) mem.Verdict {
				return mem.Verdict{Delay: 800 * time.Millisecond, Late: 100 * time.Millisecond}
			}
		})
		time.Sleep(time.Minute)
		s.assertLiving(a, "a", "b")
		if !a.Valid() || a.View().Frozen {
			t.Error("a is not valid")
		}
		b.client.Crash()
		s.until(8*time.Second, "b's death is seen", func() bool { return a.View().KnownDead("b") })
		s.with(func() { s.fault = nil })
	})
}

// A heartbeat counts from when it was sent: others may have given its sender up before the
// answer came.
func TestALateAnswerRenewsNothing(t *testing.T) {
	run(t, func(s *site) {
		a := s.start("a")
		time.Sleep(5 * time.Second)
		s.with(func() {
			s.fault = func(op mem.Op) mem.Verdict {
				if op.Kind == mem.Write {
					return mem.Verdict{Late: 3 * time.Second}
				}
				return mem.Verdict{}
			}
		})
		time.Sleep(2 * time.Second)
		for range 100 {
			time.Sleep(100 * time.Millisecond)
			if a.Valid() {
				t.Fatal("valid by an answer that is three seconds old")
			}
		}
		s.with(func() { s.fault = nil })
	})
}

// A member whose lock was broken, or whose record was removed, is one no longer, and knows
// it with the next heartbeat. A list that was removed as a whole comes back.
func TestRemovedByHand(t *testing.T) {
	for name, remove := range map[string]func(b *process) func(op *rados.WriteOp){
		"record": func(b *process) func(op *rados.WriteOp) {
			return func(op *rados.WriteOp) { op.RemoveOmap(memberPrefix + b.ID()) }
		},
		"lock": func(b *process) func(op *rados.WriteOp) {
			return func(op *rados.WriteOp) {
				op.Exec(cls.Break(lockName, cls.LockerID{Entity: cls.ClientName(b.client.InstanceID()), Cookie: b.ID()}))
			}
		},
		"object": func(*process) func(op *rados.WriteOp) { return func(op *rados.WriteOp) { op.Remove() } },
	} {
		t.Run(name, func(t *testing.T) {
			run(t, func(s *site) {
				a, b := s.start("a"), s.start("b")
				time.Sleep(5 * time.Second)
				s.write(remove(b))
				if name == "object" {
					s.until(3*time.Second, "both are back", func() bool { return a.living() == "[a b]" && b.living() == "[a b]" && a.Valid() && b.Valid() })
					return
				}
				s.until(time.Second, "b is lost", func() bool { return errors.Is(b.isLost(), ErrRemoved) })
				<-b.ended
				if a.isLost() != nil {
					t.Error("a is lost, too")
				}
			})
		})
	}
}

// Damage is named by object and key, and changes nothing for anybody else.
func TestDamageIsNamed(t *testing.T) {
	run(t, func(s *site) {
		a, b := s.start("a"), s.start("b")
		time.Sleep(5 * time.Second)
		foreign := record{1, Member{ID: "17", Identity: "x"}}
		s.write(func(op *rados.WriteOp) {
			op.SetOmap(map[string][]byte{
				beatPrefix + "77":   bytesOf(beat{1, 1}),
				memberPrefix + "77": {1, 1, 200},
				beatPrefix + "78":   {9},
				fencedPrefix + "79": bytesOf(tombstone{record: foreign}),
			})
		})
		time.Sleep(3 * time.Second)
		v := a.View()
		if len(v.Damaged) != 3 || len(v.Members) != 2 || len(v.Dead) != 0 || v.Frozen {
			t.Fatalf("%+v", v)
		}
		for i, key := range []string{beatPrefix + "78", fencedPrefix + "79", memberPrefix + "77"} {
			var at *rados.Error
			var bad *encoding.CorruptError
			if !errors.As(v.Damaged[i], &at) || at.Object != Object || !errors.As(v.Damaged[i], &bad) || bad.What != "key "+key {
				t.Errorf("%v does not name %s", v.Damaged[i], key)
			}
		}
		b.client.Crash()
		s.until(3*time.Second, "a sees b dead", func() bool { return a.View().KnownDead("b") })
		if err := a.Fence(context.Background(), b.ID()); err != nil {
			t.Error(err)
		}
		s.write(func(op *rados.WriteOp) {
			op.RemoveOmap(beatPrefix+"77", memberPrefix+"77", beatPrefix+"78", fencedPrefix+"79")
		})
		time.Sleep(time.Second)
		if v := a.View(); len(v.Damaged) > 0 {
			t.Error(v.Damaged)
		}
	})
}

// A notification that nobody understands harms nobody.
func TestForeignNotifications(t *testing.T) {
	run(t, func(s *site) {
		a := s.start("a")
		time.Sleep(time.Second)
		for _, payload := range [][]byte{nil, {1}, []byte("garbage of some length"), bytesOf(message{subject: 99}), bytesOf(message{aboutPayload, nil})} {
			if r, err := s.outsider().Notify(context.Background(), Object, payload, time.Second); err != nil || len(r.Missed) > 0 {
				t.Errorf("%q: %+v, %v", payload, r, err)
			}
		}
		a.client.LoseWatches()
		time.Sleep(2 * time.Second)
		if err := a.Notify(context.Background(), []byte("x")); err != nil {
			t.Error(err)
		}
		a.mu.Lock()
		defer a.mu.Unlock()
		if !slices.Equal(a.heard, []string{"", "x"}) {
			t.Errorf("heard %q", a.heard)
		}
	})
}

// What membership costs while nothing happens: two operations a heartbeat.
func TestIdleCost(t *testing.T) {
	run(t, func(s *site) {
		for n := range 10 {
			s.start(fmt.Sprint(n))
		}
		time.Sleep(10 * time.Second)
		before := 0
		s.with(func() { before = s.ops })
		time.Sleep(100 * time.Second)
		s.with(func() {
			each := float64(s.ops-before) / 10 / 100
			t.Logf("%.2f operations a second and member", each)
			if each > 4.1 {
				t.Errorf("%.2f operations a second and member", each)
			}
		})
	})
}

// TestMembersAtRandom: members crash, are cut off, come, leave and are fenced by whoever has
// the lowest id, over a cluster with delays and lost answers. At every moment: who has an
// entry as fenced cannot write any more; a frozen view keeps its members; and only who was
// fenced is lost. In the end all that live see all that live, and nobody else.
func TestMembersAtRandom(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}()
			s, rng := newSite(t), rand.New(rand.NewPCG(seed, 5))
			chaos := &mem.Chaos{Seed: seed, MaxDelay: 100 * time.Millisecond, Hide: 0.02, Fail: 0.02}
			s.fault = func(op mem.Op) mem.Verdict {
				if op.Kind == mem.Watch {
					return mem.Verdict{} // one whose answer is lost would be nobody's
				}
				return chaos.Judge(op)
			}
			for n := range 4 {
				s.start(fmt.Sprint(n))
			}
			for step := range 80 {
				time.Sleep(time.Duration(rng.Int64N(int64(time.Second))))
				s.fenceAsLowest()
				s.checkFenced()
				p := s.all[rng.IntN(len(s.all))]
				switch rng.IntN(12) {
				case 0:
					known := rng.IntN(2) == 0
					p.client.Crash()
					s.with(func() { s.gone[p.name] = known })
				case 1, 2:
					s.with(func() { s.cut[p.client] = !s.cut[p.client] })
				case 3:
					p.stop()
				case 4:
					p.SetDraining(rng.IntN(2) == 0)
				case 5:
					p.client.LoseWatches()
				case 6, 7:
					if len(s.all) < 14 {
						s.start(fmt.Sprintf("%d-%d", seed, step))
					}
				}
			}
			s.with(func() { clear(s.cut); s.fault = nil })
			s.start("last")
			for range 40 {
				time.Sleep(500 * time.Millisecond)
				s.fenceAsLowest()
				s.checkFenced()
			}
			s.checkEnd()
			s.end()
		})
	}
}

// fenceAsLowest lets the valid member with the lowest id fence whom it takes for dead.
func (s *site) fenceAsLowest() {
	for _, p := range s.all {
		if !p.Valid() || p.client.Crashed() {
			continue
		}
		for _, d := range p.View().Dead {
			if !d.Fenced {
				ctx, cancel := context.WithTimeout(context.Background(), 3*time.Second)
				_ = p.Fence(ctx, d.ID)
				cancel()
			}
		}
		return
	}
}

func (s *site) checkFenced() {
	s.t.Helper()
	io := s.outsider()
	var op rados.ReadOp
	tombs := op.ListOmap("", fencedPrefix, maxEntries)
	_ = io.Read(context.Background(), Object, &op)
	refused := s.store.Blocklisted()
	for _, p := range s.all {
		if _, fenced := tombs.Pairs[fencedPrefix+p.ID()]; fenced && !slices.Contains(refused, p.client.Addresses()) {
			s.t.Errorf("%s has an entry as fenced, and is not", p.name)
		}
		if p.isLost() != nil && !slices.Contains(refused, p.client.Addresses()) {
			s.t.Errorf("%s is lost although nobody fenced it: %v", p.name, p.lost)
		}
		p.mu.Lock()
		for i := 1; i < len(p.views); i++ {
			before, now := p.views[i-1], p.views[i]
			if now.Epoch <= before.Epoch {
				s.t.Errorf("%s: epoch %d after %d", p.name, now.Epoch, before.Epoch)
			}
			if now.Frozen && !before.Frozen && len(now.Members) < len(before.Members) {
				s.t.Errorf("%s: a view that freezes loses members: %v, %v", p.name, before, now)
			}
		}
		p.views = p.views[max(0, len(p.views)-1):]
		p.mu.Unlock()
	}
}

func (s *site) checkEnd() {
	s.t.Helper()
	var want []string
	var living []*process
	for _, p := range s.all {
		select {
		case <-p.ended:
			continue
		default:
		}
		if p.client.Crashed() {
			continue
		}
		living, want = append(living, p), append(want, p.name)
	}
	for _, p := range living {
		if got := p.living(); got != fmt.Sprint(want) || p.View().Frozen || !p.Valid() {
			s.t.Errorf("in the end %s sees %s, want %v; frozen %v, valid %v", p.name, got, want, p.View().Frozen, p.Valid())
		}
		for _, d := range p.View().Dead {
			if !d.Fenced {
				s.t.Errorf("in the end %s is not fenced", d.Identity)
			}
		}
	}
}
