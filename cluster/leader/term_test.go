package leader

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

const space = "tenant"

// write writes a value in a namespace with the step first, if it is not nil.
func write(io rados.IOContext, assert *class.Call, value string) error {
	var op rados.WriteOp
	if assert != nil {
		op.Exec(*assert)
	}
	op.SetOmap(map[string][]byte{"decision": []byte(value)})
	return io.Write(context.Background(), Object, &op)
}

func decision(t *testing.T, io rados.IOContext) string {
	t.Helper()
	var op rados.ReadOp
	got := op.GetOmap("decision")
	if err := io.Read(context.Background(), Object, &op); err != nil && !errors.Is(err, syscall.ENOENT) {
		t.Fatal(err)
	}
	return string(got.Pairs["decision"])
}

func (e *entrant) open(t *testing.T, namespace string) rados.IOContext {
	t.Helper()
	io, err := e.client.Open(context.Background(), "rbd", namespace)
	if err != nil {
		t.Fatal(err)
	}
	return io
}

func (x *contest) termOf(e *entrant) *Term {
	x.mu.Lock()
	defer x.mu.Unlock()
	return e.term
}

// A leader writes with its lock asserted, in the pool and in a namespace; when it leads no
// longer, the OSD refuses both, and it has released the locks in both.
func TestDecisionsNeedTheLock(t *testing.T) {
	for _, namespace := range []string{"", space} {
		t.Run("namespace="+namespace, func(t *testing.T) {
			run(t, func(x *contest) {
				a := x.enter("a")
				x.assertLeader(time.Second, a)
				term := x.termOf(a)
				assert, err := term.Assert(context.Background(), namespace)
				if err != nil {
					t.Fatal(err)
				}
				io := a.open(t, namespace)
				if err := write(io, &assert, "1"); err != nil {
					t.Fatal(err)
				}
				if again, err := term.Assert(context.Background(), namespace); err != nil || string(again.In) != string(assert.In) {
					t.Fatal(err)
				}
				if seen, err := look(context.Background(), io); err != nil || seen.owner == nil || seen.epoch != term.Epoch() {
					t.Fatalf("lock and epoch while leading: %+v, %v", seen, err)
				}
				a.stop()
				<-a.ended
				if err := write(io, &assert, "2"); !errors.Is(err, syscall.EBUSY) {
					t.Errorf("a write after the end of the term: %v", err)
				}
				if _, err := term.Assert(context.Background(), namespace); !errors.Is(err, ErrOver) {
					t.Errorf("Assert after the end of the term: %v", err)
				}
				seen, err := look(context.Background(), io)
				if err != nil || seen.owner != nil {
					t.Errorf("the lock that is left: %v, %v", seen.owner, err)
				}
				b := x.enter("b")
				x.assertLeader(time.Second, b)
				if next := x.termOf(b).Epoch(); next <= term.Epoch() {
					t.Errorf("term %d after %d", next, term.Epoch())
				}
			})
		})
	}
}

// What a dead leader has left in a namespace is broken by its successor.
func TestASuccessorBreaksWhatIsLeft(t *testing.T) {
	run(t, func(x *contest) {
		a := x.enter("a")
		x.assertLeader(time.Second, a)
		if _, err := x.termOf(a).Assert(context.Background(), space); err != nil {
			t.Fatal(err)
		}
		x.mu.Lock()
		x.known["a"] = true
		x.mu.Unlock()
		a.client.Crash()
		b := x.enter("b")
		x.assertLeader(time.Second, b)
		assert, err := x.termOf(b).Assert(context.Background(), space)
		if err != nil {
			t.Fatal(err)
		}
		if err := write(b.open(t, space), &assert, "b"); err != nil {
			t.Error(err)
		}
	})
}

// The pool's object is removed, and so the epoch begins anew: a leader counts on from what
// the namespaces have seen, instead of taking itself for an old one for ever.
func TestTheEpochSurvivesInTheNamespaces(t *testing.T) {
	run(t, func(x *contest) {
		a := x.enter("a")
		for range 3 { // three terms
			x.assertLeader(time.Second, a)
			if _, err := x.termOf(a).Assert(context.Background(), space); err != nil {
				t.Fatal(err)
			}
			a.release <- struct{}{}
			time.Sleep(2 * heartbeat)
		}
		if _, err := x.termOf(a).Assert(context.Background(), space); err != nil {
			t.Fatal(err)
		}
		before := x.termOf(a).Epoch()
		var op rados.WriteOp
		op.Remove()
		if err := a.io.Write(context.Background(), Object, &op); err != nil {
			t.Fatal(err)
		}
		x.assertLeader(3*time.Second, a)
		term := x.termOf(a)
		if got := term.Epoch(); got != 1 {
			t.Fatalf("epoch %d in a new object", got)
		}
		if _, err := term.Assert(context.Background(), space); err != nil {
			t.Fatal(err)
		}
		if got := term.Epoch(); got <= before {
			t.Errorf("epoch %d after %d", got, before)
		}
		seen, err := look(context.Background(), a.io)
		if err != nil || seen.epoch != term.Epoch() {
			t.Errorf("%+v, %v", seen, err)
		}
	})
}

// Terms follow each other without anybody being fenced, while earlier leaders, paused and
// woken at random or released, go on asking for the lock in a namespace and writing there. What a term
// has found after Assert, or has written, no earlier one undoes.
func TestEarlierTermsCannotDecide(t *testing.T) {
	for seed := range uint64(300) {
		synctest.Test(t, func(t *testing.T) {
			defer func() {
				if t.Failed() {
					t.Fatalf("seed %d", seed)
				}
			}()
			var mu sync.Mutex
			rng := rand.New(rand.NewPCG(seed, 11))
			between := func(ms int64) time.Duration {
				mu.Lock()
				defer mu.Unlock()
				return time.Duration(rng.Int64N(ms * int64(time.Millisecond)))
			}
			var observer *mem.Client
			store := mem.New(mem.Options{Faults: mem.FaultFunc(func(op mem.Op) mem.Verdict {
				if op.Client == observer {
					return mem.Verdict{}
				}
				v := mem.Verdict{Delay: between(10), Late: between(10)}
				switch between(20) / time.Millisecond {
				case 0, 1:
					v.Delay = between(1000) // its sender is overtaken by whole terms
				case 2:
					v.Late = between(1000)
				case 3:
					v.Hide = syscall.ETIMEDOUT
				}
				return v
			})})
			store.AddPool("rbd")
			observer = store.Connect()
			var all sync.WaitGroup
			over := make(chan struct{})
			go observe(t, observer, over)
			for epoch := uint64(1); epoch <= 4; epoch++ {
				client := store.Connect()
				pool, err := client.Open(context.Background(), "rbd", "")
				if err != nil {
					t.Fatal(err)
				}
				io, err := client.Open(context.Background(), "rbd", space)
				if err != nil {
					t.Fatal(err)
				}
				cookie := fmt.Sprint("auto ", epoch)
				steal(t, pool, cookie, epoch)
				term := newTerm(pool, cookie, "", epoch)
				all.Go(func() { decide(t, term, io, between) })
				time.Sleep(between(200))
			}
			all.Wait()
			close(over)
		})
	}
}

// observe reads without delay: decisions come in the order of their terms.
func observe(t *testing.T, client *mem.Client, over chan struct{}) {
	io, err := client.Open(context.Background(), "rbd", space)
	if err != nil {
		t.Error(err)
		return
	}
	last := uint64(0)
	for {
		by, _ := strconv.ParseUint(decision(t, io), 10, 64)
		if by < last {
			t.Errorf("term %d has undone what term %d decided", by, last)
		}
		last = by
		select {
		case <-over:
			return
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// steal makes a client the holder of the pool's lock, as if the one before had been broken
// by hand.
func steal(t *testing.T, pool rados.IOContext, cookie string, epoch uint64) {
	t.Helper()
	for {
		var create rados.WriteOp
		create.Create(false)
		_ = pool.Write(context.Background(), Object, &create)
		seen, err := look(context.Background(), pool)
		switch {
		case err != nil:
			continue
		case seen.owner != nil && seen.owner.Cookie == cookie:
			return
		case seen.owner != nil:
			_ = breakLock(context.Background(), pool, *seen.owner)
			continue
		}
		var op rados.WriteOp
		op.Exec(lockCall(cookie, ""))
		op.SetXattr(epochXattr, encodeEpoch(epoch))
		_ = pool.Write(context.Background(), Object, &op)
	}
}

// decide is a leader that does not know when its term is over, until it is told.
func decide(t *testing.T, term *Term, io rados.IOContext, between func(int64) time.Duration) {
	epoch := term.Epoch()
	found := "" // by the newest read, before the first write
	wrote := false
	defer func() {
		term.close()
		term.release(context.Background(), false)
	}()
	for range 1 + between(8)/time.Millisecond { // some are soon asked to release
		time.Sleep(between(60))
		assert, err := term.Assert(context.Background(), space)
		if errors.Is(err, ErrOver) {
			return
		}
		if err != nil {
			continue
		}
		for range 3 {
			now := newest(io)
			by, _ := strconv.ParseUint(now, 10, 64)
			if (wrote || found != "") && by < epoch && now != found {
				t.Errorf("term %d reads what term %d wrote behind its back, after %q", epoch, by, found)
			}
			found = now
			time.Sleep(between(60))
			if write(io, &assert, strconv.FormatUint(epoch, 10)) == nil {
				wrote = true
			}
		}
	}
}

// newest reads the decision until it can.
func newest(io rados.IOContext) string {
	for {
		var op rados.ReadOp
		got := op.GetOmap("decision")
		if err := io.Read(context.Background(), Object, &op); err == nil {
			return string(got.Pairs["decision"])
		}
	}
}

// The epoch's attribute is damaged: an error that says where, and nobody leads on a guess.
func TestADamagedEpochIsNamed(t *testing.T) {
	run(t, func(x *contest) {
		io, err := x.store.Connect().Open(context.Background(), "rbd", "")
		if err != nil {
			t.Fatal(err)
		}
		var op rados.WriteOp
		op.Create(false)
		op.SetXattr(epochXattr, []byte("abc"))
		if err := io.Write(context.Background(), Object, &op); err != nil {
			t.Fatal(err)
		}
		x.enter("a")
		x.assertLeader(5*time.Second, nil)
		_, err = look(context.Background(), io)
		var at *rados.Error
		if !errors.As(err, &at) || at.Object != Object || rados.Classify(err) != rados.Corrupt {
			t.Errorf("%v", err)
		}
	})
}

// A hundred candidates start within a few milliseconds, on a cluster with delays, in which
// the leader dies again and again: in the pool and in a namespace, only one at a time can
// write, and the decisions of terms are in order.
func TestAHundredStarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		x := newContest(t)
		for n := range 100 {
			x.enter(fmt.Sprint(n))
			if n%10 == 0 {
				time.Sleep(time.Millisecond)
			}
		}
		last := uint64(0)
		for range 20 {
			boss := x.after(time.Second)
			if boss == nil {
				t.Fatal("nobody leads")
			}
			term := x.termOf(boss)
			if term.Epoch() != last+1 {
				t.Fatalf("term %d after %d: somebody has led unseen", term.Epoch(), last)
			}
			last = term.Epoch()
			assert, err := term.Assert(context.Background(), space)
			if err != nil {
				t.Fatal(err)
			}
			if err := write(boss.open(t, space), &assert, fmt.Sprint(last)); err != nil {
				t.Fatal(err)
			}
			refused := 0
			for _, e := range x.all {
				if e == boss || e.client.Crashed() {
					continue
				}
				mine := cls.Assert(cls.RBDName, cls.Exclusive, cls.RBDCookie(1), cls.RBDTag)
				if term := x.termOf(e); term != nil {
					mine = assertCall(term.cookie)
				}
				if err := write(e.open(t, space), &mine, "x"); !errors.Is(err, syscall.EBUSY) && !errors.Is(err, rados.Blocklisted) {
					t.Fatalf("%s, which does not lead, writes: %v", e.name, err)
				}
				refused++
			}
			if refused < 70 || decision(t, boss.open(t, space)) != fmt.Sprint(last) {
				t.Fatalf("%d refused, %q decided", refused, decision(t, boss.open(t, space)))
			}
			x.mu.Lock()
			x.known[boss.name] = true
			x.mu.Unlock()
			boss.client.Crash()
		}
		x.end()
	})
}

// An attempt to take the lock that comes late, after another term has come and gone, is
// refused: two terms with the same epoch could not be told apart.
func TestALateTakeIsRefused(t *testing.T) {
	run(t, func(x *contest) {
		first := x.hold()
		first.letGo(t)
		seen, err := look(context.Background(), first.io)
		if err != nil || seen.owner != nil {
			t.Fatal(seen, err)
		}
		x.hold().letGo(t)
		if held, err := (&candidate{io: first.io}).take(context.Background(), first.cookie, seen.epoch); held || err != nil {
			t.Errorf("a late attempt: held %v, %v", held, err)
		}
	})
}
