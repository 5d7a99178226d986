//go:build live

package lab

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if len(os.Args) == 3 && os.Args[1] == "guard" {
		if err := Guard(os.Args[2]); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) == 3 && os.Args[1] == "start-and-die" {
		if _, err := Start(context.Background(), Options{Dir: os.Args[2], Guard: []string{"guard"}}); err != nil {
			os.Exit(1)
		}
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	}
	os.Exit(m.Run())
}

func TestClusterServesAndLeavesNoTrace(t *testing.T) {
	for _, store := range []Store{Memstore, Bluestore} {
		t.Run(string(store), func(t *testing.T) {
			began := time.Now()
			c, err := Start(t.Context(), Options{Store: store})
			if err != nil {
				t.Fatal(err)
			}
			t.Logf("up after %v", time.Since(began))
			defer c.Stop()
			for _, argv := range [][]string{
				{"ceph", "osd", "pool", "create", "p", "8"}, {"rbd", "pool", "init", "p"}, {"rbd", "create", "-s", "4M", "p/i"},
			} {
				if _, err := c.CLI(t.Context(), argv[0], argv[1:]...); err != nil {
					t.Fatal(err)
				}
			}
			if out, err := c.CLI(t.Context(), "rbd", "ls", "p"); err != nil || out != "i\n" {
				t.Fatalf("rbd ls: %q, %v", out, err)
			}
			again, err := Open(c.Dir())
			if err != nil || !again.Status(t.Context()).Healthy() {
				t.Fatalf("opened from elsewhere: %v", err)
			}
			if err := again.Stop(); err != nil {
				t.Fatal(err)
			}
			assertNoTrace(t, c.Dir())
		})
	}
}

func TestManyLabsStartAtOnce(t *testing.T) {
	var wait sync.WaitGroup
	for range 3 {
		wait.Go(func() {
			c, err := Start(t.Context(), Options{})
			if err != nil {
				t.Error(err)
				return
			}
			if err := c.Stop(); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
}

func TestGuardCleansUpBehindAKilledStarter(t *testing.T) {
	dir := filepath.Join(os.TempDir(), "warden-lab-guarded")
	cmd := exec.Command("/proc/self/exe", "start-and-die", dir)
	if err := cmd.Run(); err == nil || !strings.Contains(err.Error(), "killed") {
		t.Fatalf("starter ended with %v, want a kill", err)
	}
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err := os.Stat(dir); os.IsNotExist(err) {
			assertNoTrace(t, dir)
			return
		}
	}
	t.Fatal("the directory is still there")
}

func assertNoTrace(t *testing.T, dir string) {
	t.Helper()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("directory is left: %v", err)
	}
	if pids, err := processes(dir); err != nil || len(pids) > 0 {
		t.Errorf("processes are left: %v %v", pids, err)
	}
}
