//go:build live

package live

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestOperatorScripts runs shell scripts that were written for rbd-mirror: they start it by its name and flags, ask its
// admin socket and "rbd mirror ... status", check pid files, kill it, and compare exports.
func TestOperatorScripts(t *testing.T) {
	pair := harness.SharedPair(t)
	for script, mode := range map[string]lab.MirrorMode{"daemon": lab.PoolMode, "mirror": lab.PoolMode, "image": lab.ImageMode} {
		t.Run(script, func(t *testing.T) {
			pool := harness.NewPool(t, pair, mode)
			runScript(t, pool, script+".sh")
		})
	}
}

// scriptTime bounds one script.
const scriptTime = 8 * time.Minute

// runScript runs a script of testdata in a directory of its own.
func runScript(t *testing.T, pool *harness.Pool, script string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", script))
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp("", "warden-op-") // short: admin sockets are in there
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the script's files are in %s", dir)
			return
		}
		os.RemoveAll(dir)
	})
	here, there := pool.Pair.Secondary, pool.Pair.Primary
	for _, c := range []*lab.Cluster{here, there} {
		if err := os.Symlink(c.Conf(), filepath.Join(dir, c.Name()+".conf")); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), scriptTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", path)
	cmd.Dir = dir
	cmd.Env = append(here.Environ(), // what the script leaves running ends with the cluster
		"HERE="+here.Name(), "THERE="+there.Name(), "POOL="+pool.Name, "ID="+strings.TrimPrefix(lab.DaemonUser, "client."),
		"PATH="+filepath.Dir(harness.Ours(t))+":"+os.Getenv("PATH"))
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = 10 * time.Second
	began := time.Now()
	out, err := cmd.CombinedOutput()
	t.Logf("%s took %v", script, time.Since(began).Round(time.Second))
	endMirrors(t, dir)
	if err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
	t.Logf("%s", out)
}

// endMirrors ends the daemons whose pid files a script has left.
func endMirrors(t *testing.T, dir string) {
	files, _ := filepath.Glob(filepath.Join(dir, "*.pid"))
	for _, file := range files {
		harness.EndByPIDFile(t, file, dir)
	}
}
