package lab

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestOptionsAreCheckedBeforeAnythingStarts(t *testing.T) {
	full := t.TempDir()
	if err := os.WriteFile(filepath.Join(full, "mine"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, o := range map[string]Options{
		"unknown store":   {Store: "filestore"},
		"directory full":  {Dir: full},
		"path too long":   {Dir: filepath.Join(t.TempDir(), strings.Repeat("x", 100))},
		"parent no a dir": {Dir: filepath.Join(full, "mine", "sub")},
	} {
		if _, err := o.withDefaults(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	if _, err := os.Stat(filepath.Join(full, "mine")); err != nil {
		t.Errorf("a refused directory lost its contents: %v", err)
	}
}

func TestOpenRefusesADirectoryThatIsNoLab(t *testing.T) {
	if _, err := Open(t.TempDir()); !errors.Is(err, ErrNotLab) {
		t.Fatalf("got %v, want ErrNotLab", err)
	}
}

func TestOpenRefusesALabThatWasMovedOrCopied(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, stateName), []byte(`{"dir":"/somewhere/else"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); !errors.Is(err, ErrNotLab) {
		t.Fatalf("got %v, want ErrNotLab: Stop would remove a directory that is not the lab's", err)
	}
}

func TestTwoLabsNeverClaimTheSamePorts(t *testing.T) {
	first, err := claimPorts()
	if err != nil {
		t.Fatal(err)
	}
	defer first.release()
	if second, err := claimPortsAt(first.first); err == nil {
		second.release()
		t.Fatalf("ports at %d were claimed twice", first.first)
	}
}

func TestAReleasedClaimIsFreeAgain(t *testing.T) {
	first, err := claimPorts()
	if err != nil {
		t.Fatal(err)
	}
	first.release()
	second, err := claimPortsAt(first.first)
	if err != nil {
		t.Fatal(err)
	}
	second.release()
}

// startSleeper starts a process that does nothing, with the environment given.
func startSleeper(t *testing.T, env []string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("sleep", "600")
	cmd.Env = env
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill(); cmd.Wait() })
	return cmd
}

func TestKillAllEndsMarkedProcessesAndNoOther(t *testing.T) {
	dir := t.TempDir()
	ours := startSleeper(t, environ(dir))
	sibling := startSleeper(t, environ(dir+"2"))
	stranger := startSleeper(t, os.Environ())
	if err := killAll(t.Context(), dir); err != nil {
		t.Fatal(err)
	}
	if alive(ours.Process.Pid) {
		t.Error("the marked process lives on")
	}
	if !alive(sibling.Process.Pid) || !alive(stranger.Process.Pid) {
		t.Error("a process of somebody else was killed")
	}
}

func TestSignalsDoNotReachAProcessThatIsNotOurs(t *testing.T) {
	stranger := startSleeper(t, os.Environ())
	if err := signalOwned(stranger.Process.Pid, t.TempDir(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	time.Sleep(50 * time.Millisecond)
	if !alive(stranger.Process.Pid) {
		t.Fatal("killed")
	}
}

func TestEnvironmentDoesNotRedirectCephsPrograms(t *testing.T) {
	t.Setenv("CEPH_CONF", "/production.conf")
	t.Setenv("CEPH_ARGS", "--cluster production")
	for _, entry := range environ("/lab") {
		if strings.HasPrefix(entry, "CEPH_") {
			t.Errorf("inherited %s", entry)
		}
	}
}

func TestKeyHasCephxLayout(t *testing.T) {
	made := time.Unix(1700000000, 42)
	raw, err := base64.StdEncoding.DecodeString(newKey(made))
	if err != nil {
		t.Fatal(err)
	}
	if len(raw) != 28 || binary.LittleEndian.Uint16(raw) != 1 || binary.LittleEndian.Uint16(raw[10:]) != 16 ||
		binary.LittleEndian.Uint32(raw[2:]) != 1700000000 || binary.LittleEndian.Uint32(raw[6:]) != 42 {
		t.Fatalf("key is % x", raw)
	}
}

func TestExtraConfLinesBelongToGlobal(t *testing.T) {
	text := confText(description{Dir: "/d", Store: Memstore, FSID: "f", MonPort: 20000}, []string{"debug ms = 1"})
	global := text[strings.LastIndex(text, "\n["):]
	if !strings.HasPrefix(global, "\n[global]") || !strings.Contains(global, "\ndebug ms = 1\n") {
		t.Fatalf("last section is\n%s", global)
	}
}
