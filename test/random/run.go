package random

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// Options say how a run goes.
type Options struct {
	Seed uint64
	// Duration is how long rounds are begun; the last one's end and the final comparison come on top.
	Duration time.Duration
	// Families is how many there are, and so how many images are worked on side by side.
	Families int
	// Operations is how many each family does in a round, at least; up to twice as many.
	Operations int
	// LongestPause bounds the length of faults.
	LongestPause time.Duration
	// Clones switches clones on.
	Clones bool
	// Hold is how long the clusters of a run that failed stay, to be looked at.
	Hold time.Duration
	// Workers is how many each daemon has.
	Workers int
	// Calm leaves the faults out, for telling whose fault something is.
	Calm bool
}

// Run is one run.
type Run struct {
	opt      Options
	t        testing.TB
	log      *Log
	places   []Place
	sites    [2]*Site
	families []*Family
	faults   *rand.Rand
	rounds   *rand.Rand

	inflicted, hit [faultKinds]int // only the fault's goroutine counts

	mu      sync.Mutex
	done    [kinds]int
	injured injuries
}

// witness makes a part's test.
func (r *Run) witness(who string) witness { return witness{r.t, r.log, who} }

// count notes an operation that was done.
func (r *Run) count(k Kind) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done[k]++
}

// Start does a whole run on a pair of clusters, which must be the test's own.
func Start(t testing.TB, pair *lab.Pair, opt Options) {
	t.Logf("seed %d", opt.Seed)
	r := &Run{
		opt: opt, t: t, log: openLog(t, opt.Seed),
		faults: rand.New(rand.NewPCG(opt.Seed, 1<<32)), rounds: rand.New(rand.NewPCG(opt.Seed, 1<<33)),
	}
	r.log.Printf("run", "%+v", opt)
	r.makePlaces(pair)
	for i, c := range []*lab.Cluster{pair.Primary, pair.Secondary} {
		r.sites[i] = newSite(t, c, r.places, opt.Workers)
		r.sites[i].start(t)
	}
	r.makeFamilies()
	// Clusters end before writers' connections would: a guest whose cluster is gone never closes.
	t.Cleanup(func() {
		for _, f := range r.families {
			for _, d := range f.Disks {
				f.close(d)
			}
		}
	})
	t.Cleanup(func() {
		if t.Failed() && opt.Hold > 0 {
			r.log.Printf("run", "held for %v", opt.Hold)
			time.Sleep(opt.Hold)
		}
	})
	for began, round := time.Now(), 1; time.Since(began) < opt.Duration; round++ {
		r.round(round)
	}
	r.end()
	r.report()
}

// makePlaces makes the mirrored pools and namespaces.
func (r *Run) makePlaces(pair *lab.Pair) {
	whole := harness.NewPool(r.t, pair, lab.PoolMode)
	r.places = []Place{
		{Pool: whole},
		{Pool: whole.NewNamespace(r.t, "ns", lab.PoolMode)},
		{Pool: harness.NewPool(r.t, pair, lab.ImageMode), Each: true},
	}
}

// makeFamilies gives each family a home: most stay in one place, one uses all.
func (r *Run) makeFamilies() {
	var each []bool
	for _, p := range r.places {
		each = append(each, p.Each)
	}
	homes := [][]int{{0}, {1}, {2}, {0}, {0, 1, 2}, {2}, {0}, {1}}
	for n := range r.opt.Families {
		who := fmt.Sprintf("f%d", n)
		r.families = append(r.families, &Family{
			Plan: newPlan(r.opt.Seed, n, homes[n%len(homes)], each, r.opt.Clones),
			At:   r.sites[0], Other: r.sites[1], run: r, t: r.witness(who), injuries: make(chan time.Duration, 1),
		})
	}
}

// round lets the families work while there are faults, compares, lets some fail over, and compares again.
func (r *Run) round(n int) {
	t := r.witness("run")
	t.log.Printf(t.who, "round %d", n)
	moving := map[*Family]bool{}
	for _, f := range r.families {
		moving[f] = r.rounds.IntN(3) == 0
	}
	r.during(r.families, func(f *Family) {
		f.work(r.opt.Operations+f.random.IntN(r.opt.Operations+1), moving[f])
	})
	r.settle()
	r.move(moving)
}

// work does some operations, makes the family ready to fail over if it is to, and closes its disks.
func (f *Family) work(operations int, moving bool) {
	f.do(operations)
	if moving {
		for _, op := range f.ready() {
			f.perform(op)
		}
	}
	for _, d := range f.Disks {
		f.close(d)
	}
}

// during lets families do something side by side, with faults, and ends the test if anything went wrong.
func (r *Run) during(families []*Family, do func(*Family)) {
	r.t.Helper()
	stop := func() {}
	if !r.opt.Calm {
		stop = r.faulting(r.t)
	}
	var wait sync.WaitGroup
	for _, f := range families {
		wait.Go(func() { do(f) })
	}
	wait.Wait()
	stop()
	r.failNow()
}

// move lets families fail over, and compares afterwards.
func (r *Run) move(moving map[*Family]bool) {
	var families []*Family
	force := map[*Family]bool{}
	for _, f := range r.families {
		if moving[f] {
			families = append(families, f)
			force[f] = r.rounds.IntN(4) == 0
		}
	}
	if len(families) == 0 {
		return
	}
	r.noteMaps(families)
	r.during(families, func(f *Family) { f.move(force[f]) })
	r.settle()
	r.checkMaps(families)
	r.failNow()
}

// end moves every family once more without faults, stops the daemons, and looks at what they leave behind.
func (r *Run) end() {
	r.log.Printf("run", "end")
	for _, s := range r.sites {
		s.daemon.Stop(r.t, time.Minute)
	}
	before := r.blocklists()
	for _, s := range r.sites {
		s.start(r.t)
	}
	all := map[*Family]bool{}
	for _, f := range r.families {
		all[f] = true
	}
	r.opt.Calm = true
	r.during(r.families, func(f *Family) {
		f.work(5, true)
	})
	r.settle()
	r.move(all)
	r.checkLeftovers()
	for _, s := range r.sites {
		s.daemon.Stop(r.t, time.Minute)
	}
	r.checkLocks()
	r.checkBlocklists(before)
	r.failNow()
}

// failNow ends the test if anything went wrong.
func (r *Run) failNow() {
	r.t.Helper()
	if r.t.Failed() {
		r.t.FailNow()
	}
}

// report says how many of each operation and fault there were, and how the daemons bore them.
func (r *Run) report() {
	var b strings.Builder
	for kind, n := range r.done {
		fmt.Fprintf(&b, "%s %d, ", Kind(kind), n)
	}
	r.t.Logf("operations: %s", strings.TrimSuffix(b.String(), ", "))
	b.Reset()
	r.hit[DamageJournal] = r.injured.seen
	for kind, n := range r.inflicted {
		fmt.Fprintf(&b, "%s %d of %d, ", FaultKind(kind), r.hit[kind], n)
	}
	r.t.Logf("faults that hit: %s; %s", strings.TrimSuffix(b.String(), ", "), r.injured)
	var recoveries [faultKinds][]time.Duration
	for _, s := range r.sites {
		for kind, took := range s.tracker.recoveries() {
			recoveries[kind] = append(recoveries[kind], took...)
		}
		r.t.Logf("%s: most memory resident: daemon %d MiB, a worker %d MiB", s, s.tracker.daemonPeak>>20, s.tracker.workerPeak>>20)
	}
	for kind, took := range recoveries {
		if len(took) > 0 {
			r.t.Logf("%s: %s", FaultKind(kind), describe(took))
		}
	}
}
