package sim

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/asynkron/protoactor-go/actor"

	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/sim/seed"
)

// world is one run.
type world struct {
	t      *testing.T
	ctx    context.Context
	seed   uint64
	set    settings
	rng    *rand.Rand // of the story
	trace  *seed.Trace
	oracle *oracle

	local, remote           *mem.Store
	faultsHere, faultsThere *faults
	hereIO                  rados.IOContext // a connection to the local cluster on which nothing goes wrong
	primaries               []*primary
	workers                 []*worker
	owner                   []int // by image: the seat of the worker that is to run it
	lives, spawned          uint64
	processes               []*actor.PID
	goes                    sync.WaitGroup // everything that the run has started
}

// options are what image and journal ask a cluster for.
func (s settings) options() map[string]string {
	return map[string]string{
		"rbd_default_data_pool": "", "rbd_journal_order": "20", "rbd_journal_splay_width": "4", "rbd_journal_pool": "",
		"rbd_blocklist_expire_seconds": "0",
	}
}

// newWorld sets both clusters up for mirroring.
func newWorld(t *testing.T, number uint64, set settings, verbose io.Writer) *world {
	w := &world{
		t: t, ctx: context.Background(), seed: number, set: set, rng: rand.New(rand.NewPCG(number, 2)),
		trace:      seed.NewTrace(verbose),
		faultsHere: newFaults(number + 1), faultsThere: newFaults(number + 2),
	}
	there := set.options()
	there["rbd_journal_order"], there["rbd_journal_splay_width"] = fmt.Sprint(set.journalOrder), fmt.Sprint(set.splay)
	w.local = mem.New(mem.Options{
		FSID: "local", Faults: w.faultsHere, Config: set.options(),
		Observe: func(v mem.View, op mem.Op, err error) { w.observe("local", w.faultsHere, v, op, err) },
	})
	w.remote = mem.New(mem.Options{
		FSID: "remote", Faults: w.faultsThere, Config: there,
		Observe: func(v mem.View, op mem.Op, err error) { w.observe("remote", w.faultsThere, v, op, err) },
	})
	w.oracle = &oracle{set: set, local: w.local, remote: w.remote, trace: w.trace}
	remoteIO := w.mirrored(w.remote, remoteUUID)
	w.hereIO = w.mirrored(w.local, localUUID)
	w.oracle.pool = w.hereIO.Pool().ID
	for n := range set.images {
		var parent *model
		initial := set.size / 2
		if set.clone && n == 0 {
			initial = set.size * 3 / 4
		} else if set.clone {
			parent, initial = w.primaries[0].model, min(w.primaries[0].initial, set.overlap)
		}
		m := newModel(n, set.sectors, set.size, initial, parent)
		p, err := makePrimary(w.ctx, remoteIO, set, m, rand.New(rand.NewPCG(number, uint64(10+n))), w.trace, &w.oracle.mu)
		w.check(err)
		w.primaries = append(w.primaries, p)
		w.oracle.mu.Lock()
		w.oracle.models = append(w.oracle.models, m)
		w.oracle.mu.Unlock()
	}
	w.workers, w.owner = make([]*worker, set.workers), make([]int, set.images)
	return w
}

// mirrored makes the pool of a site.
func (w *world) mirrored(s *mem.Store, uuid string) rados.IOContext {
	s.AddPool(poolName)
	io := w.must(s.Connect().Open(w.ctx, poolName, ""))
	w.check(rados.Tell(w.ctx, io, mirror.Object, mirror.SetUUID(uuid)))
	w.check(rados.Tell(w.ctx, io, mirror.Object, mirror.SetMode(mirror.ModePool)))
	return io
}

// observe is called after each operation, with the cluster's lock held.
func (w *world) observe(site string, f *faults, v mem.View, op mem.Op, err error) {
	k := f.worker(op.Client)
	if k == nil {
		return
	}
	w.trace.Add("%s: life %d: %s %s %x: %v", site, k.life, op.Kind, op.Object, fingerprint(op, 0), err)
	if err != nil {
		return
	}
	if site == "local" {
		w.oracle.onLocal(v, op, k)
	} else {
		w.oracle.onRemote(v, op, k)
	}
}

// leastRead is how much the reader of a journal asks for at least, in bytes.
const leastRead = 64 << 10

// reported is called for each report of an image: memory is bounded (invariant 8). An image holds what the reader of its
// journal has for each of the objects that it reads side by side, being read and handed out, and what waits to be applied. All
// images of a worker hold no more than its budget, but for their reserves, a read that looks ahead for each, and one more read
// where nothing is left.
func (w *world) reported(k *worker, r report.Image) {
	w.trace.Add("worker %d: %s says %s %s", k.seat, r.GlobalID, r.State, r.Step)
	entry := int64(2*w.set.maxSectors*sector + 512) // a compare-and-write has both
	read := max(w.set.tailBudget/int64(w.set.splay)/2, leastRead) + entry
	limit := 2*read*int64(w.set.splay) + int64(w.set.bufferBytes+w.set.readBytes)
	most := w.set.budget + int64(w.set.images)*(w.set.reserve+read) + read
	peak := k.read.State().Peak
	w.oracle.mu.Lock()
	defer w.oracle.mu.Unlock()
	if r.BytesHeld > limit {
		w.oracle.violated("%s holds %d bytes, more than the %d that it may", r.GlobalID, r.BytesHeld, limit)
	}
	if peak > most {
		w.oracle.violated("the images of worker %d have held %d bytes together, more than the %d that they may", k.seat, peak, most)
	}
}

// register gives a process an address.
func (w *world) register(p actor.Process) *actor.PID {
	pid, _ := actors.ProcessRegistry.Add(p, fmt.Sprintf("sim-%d", processes.Add(1)))
	w.processes = append(w.processes, pid)
	return pid
}

func (w *world) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatalf("seed %d: %v", w.seed, err)
	}
}

func (w *world) must(io rados.IOContext, err error) rados.IOContext {
	w.t.Helper()
	w.check(err)
	return io
}
