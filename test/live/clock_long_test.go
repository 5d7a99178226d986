//go:build live && long

package live

import (
	"encoding/json"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/test/harness"
)

// wallClock is a part of package time for a build of the daemon whose wall clock is wrong by as many seconds as a file says,
// and jumps when the file changes. The monotonic clock is as it was, as it is when somebody sets a host's clock.
const wallClock = `package time

import (
	"sync/atomic"
	"syscall"
)

var wallBy atomic.Int64

// Whoever asks for the time may be where no call of the system is allowed, so the file is read beside that.
func init() {
	name, ok := syscall.Getenv("WARDEN_TEST_WALL_CLOCK")
	if !ok {
		return
	}
	go func() {
		for ; ; Sleep(50 * Millisecond) {
			fd, err := syscall.Open(name, syscall.O_RDONLY|syscall.O_CLOEXEC, 0)
			if err != nil {
				continue
			}
			var b [32]byte
			n, _ := syscall.Read(fd, b[:])
			syscall.Close(fd)
			by, sign := int64(0), int64(1)
			for _, c := range b[:max(n, 0)] {
				switch {
				case c == '-':
					sign = -1
				case c >= '0' && c <= '9':
					by = by*10 + int64(c-'0')
				}
			}
			wallBy.Store(sign * by)
		}
	}()
}
`

// buildWithWrongClock builds the daemon with a standard library whose wall clock follows wallClock's file. librados, which is
// not Go, keeps the host's.
func buildWithWrongClock(t *testing.T) string {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("go", "env", "GOROOT").Output()
	must(err)
	library := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	source, err := os.ReadFile(filepath.Join(library, "time.go"))
	must(err)
	const reads = "func Now() Time {\n\tsec, nsec, mono := runtimeNow()\n"
	if strings.Count(string(source), reads) != 1 {
		t.Fatalf("package time of %s reads the clock in another way", runtime.Version())
	}
	dir := t.TempDir()
	files := map[string]string{
		"time.go": strings.Replace(string(source), reads, reads+"\tsec += wallBy.Load()\n", 1), "wallclock.go": wallClock,
	}
	replace := map[string]string{}
	for name, text := range files {
		must(os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600))
		replace[filepath.Join(library, name)] = filepath.Join(dir, name)
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	must(err)
	must(os.WriteFile(filepath.Join(dir, "overlay.json"), overlay, 0o600))
	tags := ""
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			if s.Key == "-tags" {
				tags = s.Value
			}
		}
	}
	daemon := filepath.Join(dir, "rbd-mirror")
	build := exec.Command("go", "build", "-trimpath", "-overlay", filepath.Join(dir, "overlay.json"), "-tags", tags, "-o", daemon, "../../cmd/rbd-warden")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v\n%s", err, out)
	}
	return daemon
}

// TestClockJumps: the wall clock of one of three hosts jumps forth and back, by hours and by weeks; of one whose daemon
// follows, and of the one whose daemon leads. Nobody is taken for dead, no image moves, none stands still.
func TestClockJumps(t *testing.T) {
	const watched = 8 * time.Second // several times what it takes to be declared dead
	s := newTeam(t, harness.OwnPair(t), teamOptions{
		images: 12, size: 1 << 20, pause: 400 * time.Millisecond, path: buildWithWrongClock(t), clocks: true,
	})
	const hour, day = time.Hour, 24 * time.Hour
	for _, choose := range []func(places) *member{s.follower, func(p places) *member { return p.leader }} {
		p := s.settle()
		victim := choose(p)
		workers := map[string]map[int]int{}
		for _, m := range s.members {
			workers[m.host.Name] = m.daemon.Workers()
		}
		for _, by := range []time.Duration{hour, -2 * hour, 20 * day, -20 * day, 0} {
			began := time.Now()
			if err := os.WriteFile(victim.clock, []byte(strconv.Itoa(int(by.Seconds()))), 0o600); err != nil {
				t.Fatal(err)
			}
			for time.Since(began) < watched {
				time.Sleep(time.Second)
				said, err := victim.daemon.Ask(t.Context(), s.pair.Secondary)
				if err != nil {
					t.Fatal(err)
				}
				if wrong := time.Until(said.Taken) - by; wrong.Abs() > 10*time.Second {
					t.Fatalf("%s: its clock is to be wrong by %v, and is by %v", victim.host.Name, by, time.Until(said.Taken))
				}
			}
			now := time.Now()
			for n, owners := range s.witness.Owners(s, s.load) {
				if moves := harness.Moves(owners, began); moves > 0 {
					t.Errorf("%s's clock is wrong by %v: %s has moved: %v", victim.host.Name, by, s.load.Guests[n].Spec(), owners)
				}
				if pause := s.commits.Pause(n, began, now); pause > still {
					t.Errorf("%s's clock is wrong by %v: %s stood still for %v", victim.host.Name, by, s.load.Guests[n].Spec(), pause)
				}
			}
			if by.Abs() < day { // by more, certificates seem to be of another time, and the others do not hear it
				s.settle()
			}
		}
		for _, m := range s.members {
			if now := m.daemon.Workers(); len(now) == 0 || !maps.Equal(now, workers[m.host.Name]) {
				t.Errorf("the workers of %s were %v, and are %v", m.host.Name, workers[m.host.Name], now)
			}
		}
	}
	s.finish()
}
