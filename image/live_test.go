//go:build live

package image

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
)

// The live tests start a cluster, or use that whose ceph.conf WARDEN_TEST_CONF names,
// with client.admin's keyring. The command rbd is the oracle.

func TestMain(m *testing.M) { os.Exit(withCluster(m.Run)) }

func withCluster(run func() int) int {
	if os.Getenv("WARDEN_TEST_CONF") != "" {
		return run()
	}
	cluster, err := lab.Start(context.Background(), lab.Options{})
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() {
		if err := cluster.Stop(); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
	}()
	if err := os.Setenv("WARDEN_TEST_CONF", cluster.Conf()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run()
}

// thorough is set by the build tag long: kill after every single write, and more
// rounds.
var thorough bool

// nextKill is how many writes a process may do in the next round of a test that
// kills it.
func nextKill(writes int64) int64 {
	if thorough {
		return writes + 1
	}
	return writes + 6 + writes/2
}

const (
	livePool     = "imgh-test"
	liveDataPool = "imgh-data"
)

// fixture is a connection to the test cluster and its pools.
type fixture struct {
	t       testing.TB
	conf    string
	cluster *librados.Cluster
	io      rados.IOContext
}

func setUp(t testing.TB) *fixture {
	t.Helper()
	ctx := within(t, time.Minute)
	f := &fixture{t: t, conf: os.Getenv("WARDEN_TEST_CONF")}
	var err error
	if f.cluster, err = librados.Connect(ctx, librados.Config{ConfFile: f.conf}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.cluster.Close)
	for _, pool := range []string{livePool, liveDataPool} {
		f.ceph("osd", "pool", "create", pool, "8")
		f.ceph("osd", "pool", "application", "enable", pool, "rbd")
	}
	f.rbd("mirror", "pool", "enable", livePool, "image")
	if err := f.cluster.WaitForLatestMap(ctx); err != nil {
		t.Fatal(err)
	}
	f.io = f.open(livePool)
	return f
}

func (f *fixture) open(pool string) rados.IOContext {
	f.t.Helper()
	io, err := f.cluster.Open(within(f.t, time.Minute), pool, "")
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(io.Close)
	return io
}

func within(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

func (f *fixture) ceph(args ...string) string { return f.run("ceph", args...) }
func (f *fixture) rbd(args ...string) string  { return f.run("rbd", args...) }

func (f *fixture) run(command string, args ...string) string {
	f.t.Helper()
	out, err := f.try(command, args...)
	if err != nil {
		f.t.Fatalf("%s %s: %v\n%s", command, strings.Join(args, " "), err, out)
	}
	return out
}

// try gives what a command prints, with its complaints if it fails.
func (f *fixture) try(command string, args ...string) (string, error) {
	stdout, stderr, err := f.execute(command, args...)
	if err != nil {
		stdout += stderr
	}
	return stdout, err
}

// tryAll gives all that a command prints.
func (f *fixture) tryAll(command string, args ...string) (string, error) {
	stdout, stderr, err := f.execute(command, args...)
	return stdout + stderr, err
}

func (f *fixture) execute(command string, args ...string) (stdout, stderr string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, command, append([]string{"-c", f.conf}, args...)...)
	cmd.Env = append(os.Environ(), "CEPH_ARGS=")
	var out, complaints bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaints
	err = cmd.Run()
	return out.String(), complaints.String(), err
}

// export is what rbd reads from an image or snapshot.
func (f *fixture) export(what string) []byte {
	f.t.Helper()
	file := filepath.Join(f.t.TempDir(), "export")
	f.rbd("export", "--no-progress", livePool+"/"+what, file)
	b, err := os.ReadFile(file)
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// checkObjectMaps lets rbd compare the object maps of head and snapshots with the
// objects. It does that for primary images only, so the image is one meanwhile.
//
// A map may call an object changed that has not changed since the last snapshot: a
// discard of what an object does not have, or a comparison that fails, leaves the
// object as it was (with librbd, too).
func (f *fixture) checkObjectMaps(name string, snapshots ...string) {
	f.t.Helper()
	image := livePool + "/" + name
	f.rbd("mirror", "image", "promote", "--force", image)
	for _, what := range append([]string{image}, atSign(image, snapshots)...) {
		// A difference makes rbd mark the map invalid, and say so in its log only.
		out, err := f.tryAll("rbd", "object-map", "check", "--no-progress", what)
		if err != nil {
			f.t.Errorf("object-map check %s: %v\n%s", what, err, out)
		}
		differs := false
		for line := range strings.Lines(out) {
			if strings.Contains(line, "object map error") {
				differs = true
				if !strings.Contains(line, "marked as 1, but should be 3") {
					f.t.Errorf("object-map check %s: %s", what, line)
				}
			}
		}
		if differs {
			f.rbd("object-map", "rebuild", "--no-progress", what)
		}
	}
	var info struct {
		Flags []string `json:"flags"`
	}
	if err := json.Unmarshal([]byte(f.rbd("info", "--format", "json", image)), &info); err != nil {
		f.t.Fatal(err)
	}
	if len(info.Flags) != 0 {
		f.t.Errorf("image %s has the flags %q", name, info.Flags)
	}
	f.rbd("mirror", "image", "demote", image)
}

func atSign(image string, snapshots []string) []string {
	var out []string
	for _, s := range snapshots {
		out = append(out, image+"@"+s)
	}
	return out
}

// objects lists the pools' objects whose names contain text. Objects of which only
// states of removed snapshots are left, which the OSDs trim in their own time, do
// not count.
func (f *fixture) objects(text string) []string {
	f.t.Helper()
	var names []string
	for _, pool := range []string{livePool, liveDataPool} {
		io, ctx := f.open(pool), within(f.t, time.Minute)
		err := io.List(ctx, func(name string) error {
			if !strings.Contains(name, text) {
				return nil
			}
			var op rados.ReadOp
			op.Stat()
			err := io.Read(ctx, name, &op)
			if errors.Is(err, syscall.ENOENT) {
				return nil
			}
			names = append(names, name)
			return err
		})
		if err != nil {
			f.t.Fatal(err)
		}
	}
	return names
}

// spec describes a new image with all features that a mirrored image has.
func (f *fixture) spec() CreateSpec {
	id := NewID(f.cluster)
	return CreateSpec{
		ID: id, Name: "image-" + id, GlobalID: uuid.NewString(), RemoteMirrorUUID: uuid.NewString(),
		Size: 3 << 20, Order: 16,
		Features: rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureObjectMap | rbd.FeatureFastDiff |
			rbd.FeatureDeepFlatten | rbd.FeatureJournaling | rbd.FeatureOperations,
	}
}

func (f *fixture) create(spec CreateSpec) {
	f.t.Helper()
	out, err := Create(within(f.t, time.Minute), f.io, spec)
	if err != nil || out != Done {
		f.t.Fatalf("create: %v, %v", out, err)
	}
	f.t.Cleanup(func() {
		if err := Remove(within(f.t, time.Minute), f.io, spec.ID, quickLock); err != nil && !f.t.Failed() {
			f.t.Error(err)
		}
		if left := f.objects(spec.ID); len(left) != 0 && !f.t.Failed() {
			f.t.Errorf("left behind after Remove: %q", left)
		}
	})
}

func (f *fixture) openImage(io rados.IOContext, id string) *Image {
	f.t.Helper()
	im, err := Open(within(f.t, time.Minute), io, id, Options{Lock: quickLock})
	if err != nil {
		f.t.Fatal(err)
	}
	return im
}

func (f *fixture) close(im *Image) {
	f.t.Helper()
	if err := im.Close(within(f.t, time.Minute)); err != nil {
		f.t.Fatal(err)
	}
}

func writeOp(snapc ceph.SnapContext, data []byte) *rados.WriteOp {
	op := &rados.WriteOp{SnapContext: snapc}
	return op.Write(0, data)
}
