package harness

import (
	"encoding/json"
	"errors"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
)

// Verdict is what "rbd-warden verify --json" prints, as far as tests look at it.
type Verdict struct {
	Snapshot         string `json:"snapshot"`
	Result           string `json:"result"`
	Reason           string `json:"reason"`
	BytesCompared    uint64 `json:"bytes_compared"`
	BytesDiffering   uint64 `json:"bytes_differing"`
	ObjectsCompared  uint64 `json:"objects_compared"`
	ObjectsDiffering uint64 `json:"objects_differing"`
	ChecksumBytes    uint64 `json:"checksum_bytes_moved"`
	DataBytes        uint64 `json:"data_bytes_moved"`
	Differences      []struct {
		Object  uint64    `json:"object"`
		Names   [2]string `json:"names"`
		Extents []struct {
			Offset uint64 `json:"offset"`
			Length uint64 `json:"length"`
		} `json:"extents"`
	} `json:"differences"`
}

// Warden runs rbd-warden with a command's arguments against a cluster, as the daemon's user and with its privileges, and
// answers what it printed and its exit code.
func Warden(t testing.TB, c *lab.Cluster, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := WardenCommand(t, c, args...)
	var out, complaints strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), complaints.String(), cmd.ProcessState.ExitCode()
}

// WardenCommand is what Warden runs, for a test that does something to it while it runs.
func WardenCommand(t testing.TB, c *lab.Cluster, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(root(t), "bin", "rbd-warden"),
		append(args, "-c", c.Conf(), "-n", lab.DaemonUser)...)
	cmd.Env = c.Environ()
	return cmd
}

// Verify runs "rbd-warden verify" beside a cluster and fails the test unless it exits with the code.
func (i *Image) Verify(t testing.TB, c *lab.Cluster, code int, args ...string) Verdict {
	t.Helper()
	out, complaints, got := Warden(t, c, append([]string{"verify", "--json", i.Spec()}, args...)...)
	var v Verdict
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("verify: %v in %q, %q", err, out, complaints)
	}
	if got != code {
		t.Fatalf("verify exits with %d, want %d: %s%s", got, code, out, complaints)
	}
	return v
}

// FlipByte changes one byte of an object behind everybody's back.
func (i *Image) FlipByte(t testing.TB, c *lab.Cluster, object string, at int) {
	t.Helper()
	data := i.ReadObject(t, c, object)
	data[at] ^= 0x10
	i.WriteObject(t, c, object, data)
}
