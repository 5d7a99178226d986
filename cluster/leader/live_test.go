//go:build live

package leader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
)

// liveCandidate is a candidate with a client of its own.
type liveCandidate struct {
	name   string
	client rados.Cluster
	stop   context.CancelFunc
	ended  chan struct{}
	term   atomic.Pointer[Term] // while it leads
	fenced atomic.Bool
	known  atomic.Bool // others may know that it is dead
}

// liveContest is a pool of the cluster whose ceph.conf WARDEN_TEST_CONF is.
type liveContest struct {
	t    *testing.T
	ctx  context.Context
	pool string
	all  []*liveCandidate

	mu     sync.Mutex
	epochs []uint64
}

func newLiveContest(t *testing.T, pool string) *liveContest {
	if os.Getenv("WARDEN_TEST_CONF") == "" {
		t.Fatal("WARDEN_TEST_CONF is not set")
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	t.Cleanup(cancel)
	return &liveContest{t: t, ctx: ctx, pool: pool}
}

func (x *liveContest) connect() rados.Cluster {
	c, err := librados.Connect(x.ctx, librados.Config{ConfFile: os.Getenv("WARDEN_TEST_CONF")})
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(c.Close)
	return c
}

func (x *liveContest) open(c rados.Cluster, namespace string) rados.IOContext {
	if err := c.WaitForLatestMap(x.ctx); err != nil {
		x.t.Fatal(err)
	}
	io, err := c.Open(x.ctx, x.pool, namespace)
	if err != nil {
		x.t.Fatal(err)
	}
	x.t.Cleanup(io.Close)
	return io
}

func (x *liveContest) start(c *liveCandidate, io rados.IOContext) {
	ctx, stop := context.WithCancel(x.ctx)
	c.stop, c.ended = stop, make(chan struct{})
	x.t.Cleanup(func() { stop(); <-c.ended })
	go func() {
		defer close(c.ended)
		Run(ctx, io, Options{
			Heartbeat: 5 * time.Second, Description: c.name, BlocklistExpire: time.Minute,
			KnownDead: func(name string) bool {
				for _, o := range x.all {
					if o.name == name {
						return o.known.Load()
					}
				}
				return false
			},
			Leads: func(term *Term) {
				c.term.Store(term)
				x.mu.Lock()
				defer x.mu.Unlock()
				x.epochs = append(x.epochs, term.Epoch())
			},
			Lost:    func(error) { c.term.Store(nil) },
			Follows: func(string, bool) {},
			Fenced:  func(error) { c.fenced.Store(true) },
			Log:     zerolog.Nop(),
		})
	}()
}

func (x *liveContest) until(what string, cond func() bool) time.Duration {
	x.t.Helper()
	start := time.Now()
	for !cond() {
		if time.Since(start) > time.Minute {
			x.t.Fatalf("not within a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
	return time.Since(start)
}

// leader waits until somebody other than those that were fenced leads.
func (x *liveContest) leader() (boss *liveCandidate, took time.Duration) {
	x.t.Helper()
	took = x.until("somebody leads", func() bool {
		for _, c := range x.all {
			if c.term.Load() != nil && !c.known.Load() {
				boss = c
				return true
			}
		}
		return false
	})
	return boss, took
}

// TestLiveElections lets eight candidates start at the same moment. One leads, in the pool
// and in a namespace: a real OSD refuses the others' writes. It is taken for dead although
// it lives, as one that was paused; then, again, its successor ends in order.
func TestLiveElections(t *testing.T) {
	// A pool of its own for each run: its terms are counted from the first.
	x := newLiveContest(t, fmt.Sprintf("leader-test-%d", time.Now().UnixNano()))
	admin := x.connect()
	if _, _, err := admin.MonCommand(x.ctx, map[string]any{"prefix": "osd pool create", "pool": x.pool, "pg_num": 8}, nil); err != nil {
		t.Fatal(err)
	}
	var ios []rados.IOContext
	for n := range 8 {
		c := &liveCandidate{name: fmt.Sprint(n), client: x.connect()}
		x.all, ios = append(x.all, c), append(ios, x.open(c.client, ""))
	}
	for n, c := range x.all {
		x.start(c, ios[n])
	}
	for round := range 4 {
		boss, took := x.leader()
		term := boss.term.Load()
		t.Logf("round %d: %s leads in term %d after %v", round, boss.name, term.Epoch(), took.Round(time.Millisecond))
		for _, namespace := range []string{"", "tenant"} {
			assert, err := term.Assert(x.ctx, namespace)
			if err != nil {
				t.Fatal(err)
			}
			if err := write(x.open(boss.client, namespace), &assert, boss.name); err != nil {
				t.Fatal(err)
			}
			for _, c := range x.all {
				if c == boss || c.known.Load() {
					continue
				}
				if err := write(x.open(c.client, namespace), &assert, "x"); !errors.Is(err, syscall.EBUSY) {
					t.Fatalf("%s, which does not lead, writes: %v", c.name, err)
				}
			}
		}
		assert, err := term.Assert(x.ctx, "tenant")
		if err != nil {
			t.Fatal(err)
		}
		if round%2 == 0 {
			x.replace(boss, func(io rados.IOContext) error { return write(io, &assert, "late") }, rados.Blocklisted)
		} else {
			boss.stop()
			<-boss.ended
			boss.known.Store(true) // out of the game
			if err := write(x.open(boss.client, "tenant"), &assert, "late"); !errors.Is(err, syscall.EBUSY) {
				t.Errorf("a write after the release: %v", err)
			}
		}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	for i, e := range x.epochs {
		if e != uint64(i+1) {
			t.Errorf("terms %v: not one after the other", x.epochs)
			break
		}
	}
}

// replace takes a leader for dead: its late write is refused, and it notices.
func (x *liveContest) replace(boss *liveCandidate, late func(io rados.IOContext) error, want error) {
	x.t.Helper()
	io := x.open(boss.client, "tenant")
	boss.known.Store(true)
	next, took := x.leader()
	if err := late(io); !errors.Is(err, want) {
		x.t.Errorf("a late write of %s: %v", boss.name, err)
	}
	x.t.Logf("%s took over from %s, which lives, after %v", next.name, boss.name, took.Round(time.Millisecond))
	noticed := x.until("the old leader notices", func() bool { return boss.term.Load() == nil && boss.fenced.Load() })
	x.t.Logf("the old leader noticed %v later", noticed.Round(time.Millisecond))
}
