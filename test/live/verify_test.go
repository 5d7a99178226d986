//go:build live

package live

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestVerifyFindsAFlippedByte compares a replica with its primary while the daemon runs: equal; then with one byte of one
// object changed on the replica by the rados tool; then at an older snapshot, where the byte still is, after the primary
// has written over it.
func TestVerifyFindsAFlippedByte(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 32})
	write := func() { // the first three objects, whole
		harness.BenchOn(t, pair.Primary, image, "--io-pattern", "seq", "--io-threads", "1",
			"--io-size", "1M", "--io-total", "12M")
	}
	write()
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	image.WaitReplayed(t)

	if v := image.Verify(t, pair.Secondary, 2); !strings.Contains(v.Reason, "--create-snapshot") {
		t.Errorf("without a common snapshot the reason is %q", v.Reason)
	}
	image.Snapshot(t, "old")
	image.WaitReplayed(t)
	v := image.Verify(t, pair.Secondary, 0)
	if v.Result != "equal" || v.Snapshot != "old" || v.ObjectsCompared != 3 || v.BytesCompared != 12<<20 || v.DataBytes != 0 ||
		v.ChecksumBytes == 0 || v.ChecksumBytes > v.BytesCompared/1000 {
		t.Errorf("verdict on an equal copy: %+v", v)
	}
	if v := image.Verify(t, pair.Primary, 0); v.Result != "equal" {
		t.Errorf("asked on the primary's site: %+v", v)
	}

	const at = 1234567
	object := fmt.Sprintf("rbd_data.%s.%016x", image.InfoOn(t, pair.Secondary).ID, 1)
	image.FlipByte(t, pair.Secondary, object, at)
	assertFlipped := func(v harness.Verdict) {
		t.Helper()
		if v.Result != "differs" || v.ObjectsDiffering != 1 || v.BytesDiffering != 4096 || v.DataBytes != 0 ||
			v.Differences[0].Names[1] != object || v.Differences[0].Extents[0].Offset != at/4096*4096 {
			t.Errorf("verdict on a flipped byte: %+v", v)
		}
	}
	assertFlipped(image.Verify(t, pair.Secondary, 1))
	if out, _, code := harness.Warden(t, pair.Secondary, "verify", image.Spec()); code != 1 || !strings.Contains(out, object) {
		t.Errorf("to people it says %q, exit code %d", out, code)
	}

	image.Snapshot(t, "middle")
	write()
	image.Snapshot(t, "new")
	image.WaitReplayed(t)
	if v := image.Verify(t, pair.Secondary, 0); v.Snapshot != "new" {
		t.Errorf("newest common snapshot: %+v", v)
	}
	assertFlipped(image.Verify(t, pair.Secondary, 1, "--snap", "middle"))
	image.Verify(t, pair.Secondary, 2, "--snap", "none")

	v = image.Verify(t, pair.Secondary, 0, "--create-snapshot")
	if !strings.HasPrefix(v.Snapshot, ".rbd-warden.verify.") {
		t.Errorf("created snapshot: %+v", v)
	}
	image.WaitReplayed(t)
	image.AssertEqualAt(t, "", "new")
	temporary := func() int {
		return strings.Count(harness.Run(t, pair.Primary, "rbd", "snap", "ls", "--all", image.Spec()), ".rbd-warden.verify.")
	}
	if n := temporary(); n > 0 {
		t.Errorf("%d snapshots are left", n)
	}

	// Without a daemon it waits for its snapshot to be mirrored.
	daemon.Stop(t, stopTime)
	for left, signal := range []os.Signal{os.Interrupt, os.Kill} {
		cmd := harness.WardenCommand(t, pair.Secondary, "verify", "--create-snapshot", image.Spec())
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		harness.Eventually(t, harness.Patience, func() string {
			if temporary() == 0 {
				return "no snapshot is made"
			}
			return ""
		})
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait() // with whatever exit code
		if n := temporary(); n != left {
			t.Errorf("%d snapshots are left after %v, want %d", n, signal, left)
		}
	}
	harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	image.Verify(t, pair.Secondary, 0, "--create-snapshot")
	if n := temporary(); n > 0 {
		t.Errorf("%d snapshots are left by a comparison that was killed before the last one", n)
	}
	image.WaitReplayed(t)
	image.AssertEqualAt(t, "", "new")
}
