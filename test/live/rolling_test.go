//go:build live

package live

import (
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// gap is how long an image may stand still in a hand-over: what it had read is committed and its lock is given up, then it
// is opened elsewhere. A second of it is that a position is committed once a second.
const gap = 8 * time.Second

// runsOf counts the images that a daemon runs, as it says itself.
func runsOf(d *report.Daemon) (n int) {
	for _, w := range d.Workers {
		for _, p := range w.Pools {
			n += len(p.Images)
		}
	}
	return n
}

// syncs is how many first copies are made together, by all daemons of the site.
const syncs = 2

// firstCopies waits until all images were copied, and looks meanwhile how many are copied together.
func firstCopies(t *testing.T, c *lab.Cluster, load *harness.Load, daemons []*harness.Daemon) {
	t.Helper()
	most, waited, beyond := 0, 0, 0
	harness.Eventually(t, harness.Patience, func() string {
		running, waiting, replay := 0, 0, 0
		for _, d := range daemons {
			if d.ControlSocket(c) == "" {
				return "a daemon is about to start"
			}
		}
		said := psCluster(t, c, daemons[0])
		for _, d := range said.Daemons {
			if d.Report == nil {
				continue
			}
			for _, w := range d.Report.Workers {
				if w.Syncs != nil {
					running, waiting = running+w.Syncs.Running, waiting+w.Syncs.Waiting
				}
			}
		}
		for _, who := range owners(said) {
			replay += len(who)
		}
		if most, waited = max(most, running), max(waited, waiting); running <= syncs {
			beyond = 0
		} else if beyond++; beyond > 1 { // daemons do not answer at the very same moment
			t.Errorf("%d first copies at a time, of %d that may be", running, syncs)
		}
		if replay < len(load.Guests) {
			return fmt.Sprintf("%d of %d images replay; %d are copied, %d wait for that", replay, len(load.Guests), running, waiting)
		}
		return ""
	})
	t.Logf("first copies: %d at a time, %d waited", most, waited)
}

// moveByCommand has an image run by each daemon in turn, whichever is asked; what cannot be moved is refused.
func moveByCommand(t *testing.T, c *lab.Cluster, daemons []*harness.Daemon, image *harness.Image) {
	t.Helper()
	move := func(asked *harness.Daemon, code int, want string, args ...string) {
		t.Helper()
		out, complaints, got := harness.Warden(t, c, append(append([]string{"image", "move"}, args...), "--socket", asked.ControlSocket(c))...)
		if got != code || !strings.Contains(out+complaints, want) {
			t.Errorf("move %v: exit code %d: %s%s; want %d, %q", args, got, out, complaints, code, want)
		}
	}
	spec, asked := image.Spec(), daemons[1]
	for _, to := range daemons {
		move(asked, 0, "pinned there; it is replaying", spec, fmt.Sprintf("%s/%d", hostname(t), to.PID()))
		if who := owners(psCluster(t, c, asked))[image.Name]; len(who) != 1 || who[0] != to.PID() {
			t.Errorf("%s was moved to %d, and is run by %v", spec, to.PID(), who)
		}
	}
	last := daemons[len(daemons)-1].PID()
	move(asked, 0, "has it already; pinned there", spec, fmt.Sprint(last))
	move(daemons[0], 0, "it is not pinned", spec, "any")
	move(asked, 1, "no such file or directory", image.Pool.Spec()+"/absent", fmt.Sprint(last))
	move(asked, 1, `there is no member or daemon "nowhere"`, spec, "nowhere")
	move(asked, 1, "are several", spec, hostname(t))
}

// TestARollingRestart restarts three daemons one after the other while all images are written to: two after a drain, the
// third by a mere SIGTERM. No image stands still for longer than a hand-over takes, nothing is lost or done twice, and
// nobody is blocklisted.
func TestARollingRestart(t *testing.T) {
	pair := harness.ParallelPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	c := pair.Secondary
	before := blocklist(t, c)
	load := harness.NewLoad(t, pool, harness.LoadOptions{Images: 9, Size: 4 << 20})
	for _, g := range load.Guests {
		g.Fill(3 << 20)
	}
	started := 0
	start := func(workers string) *harness.Daemon {
		started++
		return harness.StartDaemon(t, c, harness.Ours(t), "--rbd-warden-workers", workers,
			"--rbd-mirror-concurrent-image-syncs", strconv.Itoa(syncs),
			"--rbd-mirror-image-policy-migration-throttle", "10", // a daemon that has nothing gets some after a tenth of it
			"--pid-file", filepath.Join(c.RunDir(), fmt.Sprintf("rolling%d.pid", started)))
	}
	daemons := []*harness.Daemon{start("2"), start("1"), start("1")}
	firstCopies(t, c, load, daemons)
	commits := harness.WatchCommits(t, load, 50*time.Millisecond)
	load.Start(t, 200*time.Millisecond)
	node := func(asked *harness.Daemon, want int, args ...string) string {
		t.Helper()
		out, complaints, code := harness.Warden(t, c, append(append([]string{"node"}, args...), "--socket", asked.ControlSocket(c))...)
		if code != want {
			t.Fatalf("node %v: exit code %d: %s%s", args, code, out, complaints)
		}
		return out + complaints
	}
	// shares waits until each of so many daemons runs something, all run, and nobody is in between.
	shares := func(asked *harness.Daemon, many int) {
		t.Helper()
		harness.Eventually(t, harness.Patience, func() string {
			said := psCluster(t, c, asked)
			runs, has := owners(said), 0
			for _, d := range said.Daemons {
				if d.Report != nil && runsOf(d.Report) > 0 {
					has++
				}
			}
			for _, g := range load.Guests {
				if len(runs[g.Name]) != 1 {
					return fmt.Sprintf("%s is run by %v", g.Name, runs[g.Name])
				}
			}
			if has != many {
				return fmt.Sprintf("%d daemons run images: %v", has, runs)
			}
			return ""
		})
	}
	shares(daemons[0], 3)

	measure := func(what string, do func()) {
		t.Helper()
		from := time.Now()
		do()
		time.Sleep(time.Until(from.Add(2 * time.Second))) // a position is committed once a second
		to := time.Now()
		var texts []string
		for n, g := range load.Guests {
			longest := commits.Pause(n, from, to)
			texts = append(texts, fmt.Sprintf("%s %.1fs", g.Name, longest.Seconds()))
			if longest > gap {
				t.Errorf("%s: %s did not get on for %v", what, g.Name, longest)
			}
		}
		t.Logf("%s, in %.1fs; longest gaps: %s", what, to.Sub(from).Seconds(), strings.Join(texts, ", "))
	}
	moveByCommand(t, c, daemons, load.Guests[0].Image)
	for n := range daemons {
		other := daemons[(n+1)%3]
		drained := n < 2
		if drained {
			measure(fmt.Sprintf("drain of daemon %d", n), func() {
				out := node(daemons[n], 0, "drain", "--wait")
				if !strings.Contains(out, ": took images, gives away ") || !strings.Contains(out, "drained in ") {
					t.Errorf("drain --wait says %q", out)
				}
			})
			said := psCluster(t, c, other)
			for _, d := range said.Daemons {
				if d.PID == daemons[n].PID() && (d.Report == nil || runsOf(d.Report) > 0 || !strings.HasPrefix(d.Report.Workers[0].Drained, "drained by ")) {
					t.Errorf("the drained daemon is %+v", d)
				}
			}
			for _, p := range said.Pools {
				if p.PID == daemons[n].PID() {
					t.Errorf("a drained daemon leads pool %s", p.Pool)
				}
			}
			if out := node(other, 0, "drain", fmt.Sprint(daemons[n].PID())); !strings.Contains(out, "drained already: it runs no image") {
				t.Errorf("a second drain, by another daemon, says %q", out)
			}
		}
		if n == 1 { // once it comes back without a restart
			measure("end of a drain", func() {
				node(other, 0, "undrain", fmt.Sprint(daemons[n].PID()))
				shares(other, 3)
			})
			node(daemons[n], 0, "drain", "--wait")
		}
		measure(fmt.Sprintf("restart of daemon %d, drained: %v", n, drained), func() {
			daemons[n].Stop(t, stopTime)
			daemons[n] = start("1")
			shares(other, 3)
		})
	}
	load.Stop()
	commits.WaitCaughtUp(t, harness.Patience)

	// The last is not drained, and runs everything in the end.
	node(daemons[0], 0, "drain", "--wait")
	node(daemons[1], 0, "drain", "--wait")
	if out := node(daemons[2], 1, "drain", "--wait"); !strings.Contains(out, "nobody else can take the images of pool "+pool.Name) {
		t.Errorf("the drain of the last daemon says %q", out)
	}
	shares(daemons[2], 1)
	for _, d := range daemons {
		d.Stop(t, stopTime)
	}
	load.AssertEqual(t)
	for address := range blocklist(t, c) {
		if !before[address] {
			t.Errorf("%s is blocklisted: a clean stop needs no fencing", address)
		}
	}
}
