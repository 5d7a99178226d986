//go:build live

package live

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestMemoryOfABurst lets each of several images have ten times the budget waiting in its journal at once. With budgets
// the worker stays under its limit from start to end. Without them the kernel kills it for that limit,
// which ps and the image's status say; the daemon starts it again; and with budgets it gets through. All copies are equal.
func TestMemoryOfABurst(t *testing.T) {
	if harness.TestsUpstream() {
		t.Skip("what only ours promises")
	}
	const (
		images = 3
		budget = 6 << 20
		burst  = 10 * budget // of each image
		limit  = 192 << 20
	)
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	var all []*harness.Image
	for i := range images {
		all = append(all, pool.Create(t, fmt.Sprintf("vm%d", i), harness.ImageOptions{SizeMiB: 32}))
	}
	start := func(flags ...string) *harness.Daemon {
		return harness.StartDaemon(t, pair.Secondary, harness.Ours(t), append([]string{
			"--rbd-warden-workers", "1", "--rbd-warden-bytes-in-flight", strconv.Itoa(budget),
			"--rbd-warden-worker-memory-limit", strconv.Itoa(limit),
		}, flags...)...)
	}
	replayed := func() {
		for _, i := range all {
			i.WaitReplayed(t)
		}
	}
	fill := func() {
		for _, i := range all {
			i.Bench(t, "rand", "64K", strconv.Itoa(burst))
		}
	}
	d := start()
	replayed()
	d.Stop(t, harness.Patience)

	fill()
	d = start()
	replayed()
	w := onlyWorker(t, d, pair)
	peak := residentPeak(t, w.PID)
	t.Logf("with a budget of %d MiB and %d MiB waiting: %d MiB of %d resident at most, %d charged to its cgroup, %d in flight", budget>>20,
		images*burst>>20, peak>>20, limit>>20, w.Memory.Peak>>20, w.Budget.Peak>>20)
	if w.Restarts != 0 || peak >= limit || w.Memory.Peak >= limit {
		t.Errorf("the worker was started %d times again (%v); at most %d bytes were resident, %d in its group", w.Restarts, w.LastCause, peak, w.Memory.Peak)
	}
	if w.Budget.Peak == 0 || w.Budget.Peak > 2*budget+images*(256<<10) {
		t.Errorf("%+v", w.Budget)
	}
	d.Stop(t, harness.Patience)
	for _, i := range all {
		i.AssertEqual(t)
	}
	if w.Memory.Group == "" {
		t.Skipf("the kernel cannot be asked to kill the worker: %s", w.Memory.Note)
	}

	fill()
	d = start("--rbd-warden-inject-no-budget", "true")
	want := fmt.Sprintf("OOM kill by the limit of its own memory group (%d bytes)", limit)
	harness.Eventually(t, harness.Patience, func() string {
		r, ok := d.Ps(t, pair.Secondary)
		if !ok || len(r.Workers) != 1 || r.Workers[0].LastCause == nil {
			return "the worker was not killed"
		}
		if got := r.Workers[0].LastCause.String(); got != want {
			t.Fatalf("the worker's cause is %q, not %q", got, want)
		}
		for _, i := range all {
			s, err := i.StatusOn(pair.Secondary)
			if err == nil && strings.Contains(s.Description, want) {
				return ""
			}
		}
		return "no image's status says why the worker was killed"
	})
	d.Stop(t, harness.Patience)
	began := time.Now()
	d = start()
	replayed()
	t.Logf("got through %v after the option was off", time.Since(began).Round(time.Millisecond))
	if w := onlyWorker(t, d, pair); w.Restarts != 0 {
		t.Errorf("started again %d times: %v", w.Restarts, w.LastCause)
	}
	d.Stop(t, harness.Patience)
	for _, i := range all {
		i.AssertEqual(t)
	}
}

// onlyWorker is what a daemon tells of its one worker.
func onlyWorker(t *testing.T, d *harness.Daemon, pair *lab.Pair) (w report.Worker) {
	t.Helper()
	harness.Eventually(t, harness.Patience, func() string {
		r, ok := d.Ps(t, pair.Secondary)
		if !ok || len(r.Workers) != 1 || r.Workers[0].Budget == nil {
			return "the worker tells nothing of its budget"
		}
		w = r.Workers[0]
		return ""
	})
	return w
}

// residentPeak is the most memory that a process has had resident, in bytes.
func residentPeak(t *testing.T, pid int) int64 {
	t.Helper()
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(data)) {
		var kib int64
		if n, _ := fmt.Sscanf(line, "VmHWM: %d kB", &kib); n == 1 {
			return kib << 10
		}
	}
	t.Fatal("no VmHWM")
	return 0
}
