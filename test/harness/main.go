package harness

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
)

// guardArg makes a test binary a guard: see lab.Options.Guard.
const guardArg = "harness-guard"

// shared is the pair that tests of one package run use together.
var shared struct {
	sync.Mutex
	pair *lab.Pair
}

// Main is a test package's TestMain: it runs the tests and stops the shared pair.
func Main(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == guardArg {
		if err := lab.Guard(os.Args[2]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 5 && os.Args[1] == hogArg {
		if err := hog(os.Args[2], os.Args[3], os.Args[4]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	code := m.Run()
	if shared.pair != nil {
		if err := shared.pair.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// options are the lab's options for a test's clusters.
func options() lab.Options {
	return lab.Options{
		Guard: []string{guardArg},
		Store: lab.Store(os.Getenv("WARDEN_TEST_STORE")),
		Conf: []string{
			"osd_pool_default_flag_hashpspool = true",
			// Deleted images are kept in the trash no longer than a test waits.
			"rbd_mirroring_delete_delay = 0",
		},
	}
}

// SharedPair answers two clusters that other tests of the package use too: a test makes pools of its own on them and
// must not stop or pause them.
func SharedPair(t testing.TB) *lab.Pair {
	t.Helper()
	shared.Lock()
	defer shared.Unlock()
	if shared.pair == nil {
		pair, err := lab.StartPair(context.Background(), options())
		if err != nil {
			t.Fatal(err)
		}
		shared.pair = pair
	}
	keepLogs(t, shared.pair)
	return shared.pair
}

// ParallelPair is OwnPair for a test that takes long: it runs beside the package's other parallel tests.
func ParallelPair(t *testing.T, conf ...string) *lab.Pair {
	t.Helper()
	t.Parallel()
	return OwnPair(t, conf...)
}

// OwnPair starts two clusters for one test, which may do with them what it likes.
func OwnPair(t testing.TB, conf ...string) *lab.Pair {
	t.Helper()
	o := options()
	o.Conf = append(o.Conf, conf...)
	pair, err := lab.StartPair(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := pair.Stop(); err != nil {
			t.Error(err)
		}
	})
	keepLogs(t, pair)
	return pair
}

// keepLogs copies what the pair's daemons logged during the test to where it outlives them if the test fails, and prints
// where that is.
func keepLogs(t testing.TB, pair *lab.Pair) {
	began := time.Now()
	t.Cleanup(func() {
		if !t.Failed() {
			return
		}
		base := os.Getenv("WARDEN_TEST_LOGS")
		if base == "" {
			base = filepath.Join(os.TempDir(), "rbd-warden-test-logs")
		}
		dir := filepath.Join(base, filepath.FromSlash(t.Name()), time.Now().UTC().Format("150405"))
		for _, c := range []*lab.Cluster{pair.Primary, pair.Secondary} {
			if err := copyLogs(filepath.Join(dir, c.Name()), c.LogDir(), began); err != nil {
				t.Logf("logs: %v", err)
			}
		}
		t.Logf("logs are in %s", dir)
	})
}

// copyLogs copies the files of a directory that were written to since.
func copyLogs(to, from string, since time.Time) error {
	if err := os.MkdirAll(to, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, entry := range entries {
		if info, err := entry.Info(); err != nil || info.ModTime().Before(since) {
			continue
		}
		text, err := os.ReadFile(filepath.Join(from, entry.Name()))
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(to, entry.Name()), text, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Run runs a client program against a cluster and fails the test if the program fails.
func Run(t testing.TB, c *lab.Cluster, tool string, args ...string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	out, err := c.CLI(ctx, tool, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// Try is Run for a program that may fail.
func Try(c *lab.Cluster, tool string, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return c.CLI(ctx, tool, args...)
}

// Eventually calls a condition until it answers nothing, and fails the test with its last answer after the time given.
func Eventually(t testing.TB, within time.Duration, condition func() string) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		why := condition()
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, why)
		}
		time.Sleep(200 * time.Millisecond)
	}
}
