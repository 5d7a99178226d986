package daemon

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// This test binary is also the processes that it tests; the variable says which.
func TestMain(m *testing.M) {
	switch os.Getenv("TEST_ROLE") {
	case "":
		os.Exit(m.Run())
	case "hold":
		p, err := HoldPIDFile(os.Getenv("TEST_PIDFILE"))
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println("held")
		bufio.NewReader(os.Stdin).ReadString('\n')
		if err := p.Release(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "become":
		warning, err := Become(os.Getenv("TEST_USER"), os.Getenv("TEST_GROUP"))
		groups, _ := os.Getgroups()
		fmt.Println(os.Getuid(), os.Getgid(), groups, os.Getenv("HOME"), warning, err)
		_, dumpErr := os.ReadFile("/proc/self/environ") // only for who is dumpable
		fmt.Println(dumpErr)
	default:
		background(os.Getenv("TEST_ROLE"))
	}
	os.Exit(0)
}

// background goes to the background, and there does what its role says.
func background(role string) {
	if !InBackground() {
		err := Background(os.Args)
		var exit *ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.Code)
		}
		if err != nil {
			fmt.Println(err)
			os.Exit(99)
		}
		os.Exit(0)
	}
	fmt.Println("pid", os.Getpid())
	fmt.Fprintln(os.Stderr, "before")
	switch role {
	case "fail":
		os.Exit(7)
	case "die":
		syscall.Kill(os.Getpid(), syscall.SIGKILL)
	case "slow":
		ch := make(chan os.Signal, 1)
		signal.Notify(ch, syscall.SIGTERM)
		fmt.Fprintln(os.Stderr, "listening")
		<-ch
		os.Exit(8)
	}
	if err := Detach(); err != nil {
		os.Exit(98)
	}
	fmt.Fprintln(os.Stderr, "after")
	time.Sleep(time.Minute)
}

func command(role string, env ...string) *exec.Cmd {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(append(os.Environ(), "TEST_ROLE="+role), env...)
	return cmd
}

func TestBackground(t *testing.T) {
	out, err := command("serve").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text := string(out)
	if !strings.Contains(text, "before") || strings.Contains(text, "after") {
		t.Errorf("output %q", text)
	}
	var pid int
	if _, err := fmt.Sscanf(text, "pid %d", &pid); err != nil {
		t.Fatalf("no pid in %q", text)
	}
	defer syscall.Kill(pid, syscall.SIGKILL)
	if sid, err := getsid(pid); err != nil || sid != pid {
		t.Errorf("session %d of process %d, %v", sid, pid, err)
	}
	for fd := range 3 {
		if to, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); err != nil || to != os.DevNull {
			t.Errorf("descriptor %d is %s, %v", fd, to, err)
		}
	}
}

func getsid(pid int) (int, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0, err
	}
	_, rest, _ := strings.Cut(string(stat), ") ")
	return strconv.Atoi(strings.Fields(rest)[3])
}

func TestBackgroundFails(t *testing.T) {
	for role, want := range map[string]int{"fail": 7, "die": 1} {
		out, err := command(role).CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != want {
			t.Errorf("%s: %v, want exit code %d", role, err, want)
		}
		if !strings.Contains(string(out), "before") || role == "die" && !strings.Contains(string(out), "killed") {
			t.Errorf("%s: output %q", role, out)
		}
	}
}

// Who presses ^C while it starts must not leave it behind.
func TestBackgroundPassesSignals(t *testing.T) {
	cmd := command("slow")
	out, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() && lines.Text() != "listening" {
	}
	cmd.Process.Signal(syscall.SIGTERM)
	var exit *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &exit) || exit.ExitCode() != 8 {
		t.Errorf("got %v", err)
	}
}

func TestPIDFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pid")
	// A longer one, left behind by the dead.
	if err := os.WriteFile(path, []byte("12345678901\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	holder := command("hold", "TEST_PIDFILE="+path)
	in, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "held\n" {
		t.Fatalf("%q, %v", line, err)
	}
	want := strconv.Itoa(holder.Process.Pid)
	if data, err := os.ReadFile(path); err != nil || string(data) != want+"\n" {
		t.Errorf("the file has %q, %v", data, err)
	}
	_, err = HoldPIDFile(path)
	if !errors.Is(err, ErrRunning) || !strings.Contains(err.Error(), "pid "+want) {
		t.Errorf("a second holder: %v", err)
	}
	in.Close()
	if err := holder.Wait(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the file is still there: %v", err)
	}
}

func TestPIDFileOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.pid")
	p, err := HoldPIDFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// Somebody replaced it: it is not ours to remove.
	if err := os.Rename(path, path+".old"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := p.Release(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("removed a file of somebody else's:", err)
	}

	if p, err := HoldPIDFile(""); err != nil || p.Release() != nil {
		t.Error("no pid file is no error:", err)
	}
	if _, err := HoldPIDFile(filepath.Join(path, "x")); err == nil {
		t.Error("a pid file where none can be")
	}
}

func TestBecome(t *testing.T) {
	if os.Getuid() != 0 {
		out, _ := command("become", "TEST_USER=nobody").Output()
		if !strings.Contains(string(out), "since I am not root") {
			t.Errorf("got %q", out)
		}
		return
	}
	for _, c := range []struct{ user, group, want string }{
		{"", "", "0 0"},
		{"root", "", "0 0"},
		{"daemon", "", "1 1 [1] /usr/sbin  <nil>\n<nil>"},
		{"1", "", "1 1 [1] /usr/sbin  <nil>\n<nil>"},
		{"daemon", "bin", "1 2 [2] /usr/sbin  <nil>\n<nil>"},
		{"54321", "4242", "54321 4242 [4242]"},
		{"nosuchuser", "", `unable to look up user "nosuchuser"`},
		{"daemon", "nosuchgroup", `unable to look up group "nosuchgroup"`},
	} {
		out, err := command("become", "TEST_USER="+c.user, "TEST_GROUP="+c.group).Output()
		if err != nil || !strings.Contains(string(out), c.want) {
			t.Errorf("%s:%s: got %q, %v, want %q", c.user, c.group, out, err, c.want)
		}
	}
}

func TestNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify("READY=1"); err != nil {
		t.Error("without systemd:", err)
	}
	for _, name := range []string{filepath.Join(t.TempDir(), "n"), "@rbd-warden-test-" + strconv.Itoa(os.Getpid())} {
		l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
		if err != nil {
			t.Fatal(err)
		}
		t.Setenv("NOTIFY_SOCKET", name)
		if err := Notify("READY=1", "STATUS=up"); err != nil {
			t.Fatal(err)
		}
		l.SetReadDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 100)
		n, err := l.Read(b)
		if err != nil || string(b[:n]) != "READY=1\nSTATUS=up" {
			t.Errorf("%s: got %q, %v", name, b[:n], err)
		}
		l.Close()
		if err := Notify("x"); err == nil {
			t.Error("told nobody without an error")
		}
	}
}
