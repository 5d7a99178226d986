//go:build long

package coordinator

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/cluster/identity"
	"github.com/rbdwarden/rbdwarden/cluster/imagemap"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/cluster/placement"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

var (
	scaleHosts   = flag.Int("scale-hosts", 5, "hosts of TestScale")
	scaleWorkers = flag.Int("scale-workers", 4, "workers a host of TestScale")
	scaleImages  = flag.Int("scale-images", 30_000, "images of TestScale")
)

// crowd is a pool with many members and images. What a member runs is only counted.
type crowd struct {
	t      *testing.T
	store  *mem.Store
	images []string

	mu      sync.Mutex
	members []*one
	ops     map[*mem.Client]int
	kinds   map[string]int
	bytes   int // written
	moves   int // entries of the map that were written
	pids    int
}

// one is a member of the crowd.
type one struct {
	*Coordinator
	client      *mem.Client
	stop        context.CancelFunc
	ended       chan struct{}
	dead, leads bool
	runs        int
	epoch       uint64
}

// opTime is what an operation takes, before what it carries does: about a well kept cluster's.
const opTime = 2 * time.Millisecond

func (c *crowd) judge(op mem.Op) mem.Verdict {
	if op.Kind == mem.Deliver {
		return mem.Verdict{Delay: opTime / 2}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ops[op.Client]++
	kind := string(op.Kind) + " " + op.Object
	c.kinds[kind]++
	took := opTime
	if op.Write != nil {
		for _, s := range op.Write.Steps {
			c.bytes += len(s.Data) + len(s.Call.In)
			for key, value := range s.Pairs {
				c.bytes += len(key) + len(value)
				if strings.HasPrefix(key, "image_map_") {
					c.moves++
					took += 10 * time.Microsecond
				}
			}
		}
	}
	return mem.Verdict{Delay: took}
}

func (c *crowd) start(host, index, siblings int) *one {
	c.pids++
	client := c.store.Connect()
	ctx, stop := context.WithCancel(context.Background())
	m := &one{client: client, stop: stop, ended: make(chan struct{})}
	m.Coordinator = New(Options{
		Open: func(ctx context.Context, namespace string) (rados.IOContext, error) {
			return client.Open(ctx, "rbd", namespace)
		},
		Self: membership.Member{
			Host: fmt.Sprint("host", host), Seat: Seat(fmt.Sprint("host", host), 1, index), Index: index, Started: time.Now(),
			Identity: identity.Identity{Boot: fmt.Sprint("boot", host), PIDNS: "n", PID: c.pids, Start: 1}.String(),
		},
		Siblings: siblings, Heartbeat: 5 * time.Second, Placement: placement.Defaults(), Log: zerolog.Nop(),
		KnownDead: func(string) bool { return false },
	})
	locked := func(f func()) {
		c.mu.Lock()
		defer c.mu.Unlock()
		f()
	}
	told := Told{
		Works: func(bool, string) {}, Follows: func(string) {}, Trashed: func() {}, Fenced: func(error) {},
		Leads: func() { locked(func() { m.leads = true }) },
		Lost:  func(error) { locked(func() { m.leads = false }) },
		Assigned: func(namespace string, share Share) {
			locked(func() { m.runs, m.epoch = len(share.Run), share.Epoch })
			time.AfterFunc(100*time.Millisecond, func() { m.Applied(namespace, share.Epoch) }) // what was taken away is let go
		},
	}
	locked(func() { c.members = append(c.members, m) })
	m.Namespaces([]string{""})
	m.Listed("", c.images, true)
	go func() {
		defer close(m.ended)
		m.Run(ctx, told)
	}()
	return m
}

func (c *crowd) kill(m *one) {
	c.mu.Lock()
	m.dead, m.leads = true, false
	c.mu.Unlock()
	m.client.Crash()
	m.stop()
}

func (c *crowd) leader() *one {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, m := range c.members {
		if m.leads {
			return m
		}
	}
	return nil
}

// settled tells whether all images are run, each by one.
func (c *crowd) settled(even bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	sum, least, most, epochs := 0, len(c.images), 0, map[uint64]bool{}
	for _, m := range c.members {
		if !m.dead {
			sum, least, most = sum+m.runs, min(least, m.runs), max(most, m.runs)
			epochs[m.epoch] = true
		}
	}
	return sum == len(c.images) && len(epochs) == 1 && (!even || most-least <= 1)
}

// measure tells what a story costs until all images are run again, evenly if asked for.
func (c *crowd) measure(name string, limit time.Duration, even bool, story func()) {
	c.t.Helper()
	c.mu.Lock()
	clear(c.ops)
	clear(c.kinds)
	c.bytes, c.moves = 0, 0
	c.mu.Unlock()
	began, cpu := time.Now(), used()
	story()
	for !c.settled(even) {
		if time.Since(began) > limit {
			c.t.Fatalf("%s: not settled after %v", name, limit)
		}
		time.Sleep(10 * time.Millisecond)
	}
	took := time.Since(began)
	cpu = used() - cpu
	c.mu.Lock()
	defer c.mu.Unlock()
	ops := 0
	for _, n := range c.ops {
		ops += n
	}
	c.t.Logf("%-34s %8.2f s, %6d entries written (%d KiB), %6d operations, %6.1f s of CPU in all",
		name, took.Seconds(), c.moves, c.bytes>>10, ops, cpu.Seconds())
}

// idle tells what it costs that nothing happens.
func (c *crowd) idle(d time.Duration) {
	c.mu.Lock()
	clear(c.ops)
	clear(c.kinds)
	c.mu.Unlock()
	cpu := used()
	time.Sleep(d)
	cpu = used() - cpu
	leader := c.leader()
	c.mu.Lock()
	defer c.mu.Unlock()
	all, most, members := 0, 0, 0
	for _, m := range c.members {
		if !m.dead {
			members++
			all += c.ops[m.client]
			if m != leader {
				most = max(most, c.ops[m.client])
			}
		}
	}
	c.t.Logf("idle: %.1f operations a second of %d members; the leader %.1f, another %.1f at most; CPU of all %.2f s a second",
		float64(all)/d.Seconds(), members, float64(c.ops[leader.client])/d.Seconds(), float64(most)/d.Seconds(), cpu.Seconds()/d.Seconds())
	for _, kind := range slices.Sorted(maps.Keys(c.kinds)) {
		c.t.Logf("    %-28s %6.1f a second", kind, float64(c.kinds[kind])/d.Seconds())
	}
}

// used is the processor time of this process.
func used() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// size tells how large the map is.
func (c *crowd) size() {
	io, err := c.store.Connect().Open(context.Background(), "rbd", "")
	if err != nil {
		c.t.Fatal(err)
	}
	entries, values, deltas := 0, 0, 0
	c.store.Look(io.Pool().ID, "", func(v mem.View) {
		for _, value := range v.OmapValues(imagemap.Object, "image_map_") {
			entries, values = entries+1, values+len(value)
		}
		for _, value := range v.OmapValues(imagemap.Object, "rbd_warden_map_delta_") {
			deltas += len(value)
		}
	})
	keys := entries * len("image_map_"+c.images[0])
	c.t.Logf("the map: %d entries, %d KiB of keys, %d KiB of values (%d bytes an entry), %d KiB of what was changed lately",
		entries, keys>>10, values>>10, (keys+values)/max(1, entries), deltas>>10)
}

// TestScale measures a large site: docs/scale.md has what it prints. Times are those of the
// cluster and of waiting, for computing takes no time in the bubble: it is told as CPU, of
// all members together, who would be on hosts of their own.
func TestScale(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &crowd{t: t, ops: map[*mem.Client]int{}, kinds: map[string]int{}}
		c.store = mem.New(mem.Options{Faults: mem.FaultFunc(c.judge)})
		c.store.AddPool("rbd")
		for n := range *scaleImages {
			c.images = append(c.images, fmt.Sprintf("%08x-6e21-4e5b-9d5c-0123456789ab", n*2654435761%(1<<32)))
		}
		hosts, workers := *scaleHosts, *scaleWorkers
		t.Logf("%d members on %d hosts, %d images", hosts*workers, hosts, len(c.images))
		c.measure("first placement", 10*time.Minute, true, func() {
			for h := range hosts {
				for w := range workers {
					c.start(h, w, workers)
				}
			}
			time.Sleep(20 * time.Millisecond)
		})
		c.size()
		c.idle(10 * time.Second)
		other := func() *one {
			for _, m := range c.members {
				if !m.dead && m != c.leader() {
					return m
				}
			}
			return nil
		}
		c.measure("a member dies", time.Minute, false, func() { c.kill(other()) })
		c.measure("the leader dies", time.Minute, false, func() { c.kill(c.leader()) })
		c.measure("a host is added", 20*time.Minute, true, func() {
			for w := range workers {
				c.start(hosts, w, workers)
			}
			time.Sleep(20 * time.Millisecond)
		})
		c.measure("a worker dies and is started again", time.Minute, false, func() {
			at := len(c.members) - 1
			m := c.members[at]
			if m == c.leader() {
				at--
				m = c.members[at]
			}
			c.kill(m)
			time.Sleep(500 * time.Millisecond)
			c.start(hosts, m.opt.Self.Index, workers)
		})
		c.size()
		for _, m := range c.members {
			c.kill(m)
			<-m.ended
		}
		time.Sleep(time.Minute)
	})
}
