//go:build long

package imagesync

import (
	"bytes"
	"context"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	goceph "github.com/ceph/go-ceph/rbd"
	"github.com/google/go-cmp/cmp"
	"github.com/google/uuid"

	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
	"github.com/rbdwarden/rbdwarden/rados/librbd"
)

// The live tests need a cluster: WARDEN_TEST_CONF is its ceph.conf. One cluster plays
// both sides, each in a pool of its own. librbd writes the remote image and reads the
// local one; rbd's commands compare.

const (
	remotePool = "sync-test-remote"
	localPool  = "sync-test-local"
)

type fixture struct {
	*testing.T
	conf          string
	cluster       *librados.Cluster
	remote, local rados.IOContext
}

func setUp(t *testing.T) *fixture {
	conf := os.Getenv("WARDEN_TEST_CONF")
	if conf == "" {
		t.Fatal("WARDEN_TEST_CONF is not set")
	}
	f := &fixture{T: t, conf: conf}
	var err error
	if f.cluster, err = librados.Connect(t.Context(), librados.Config{ConfFile: conf}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.cluster.Close)
	f.remote, f.local = f.pool(remotePool), f.pool(localPool)
	return f
}

func (f *fixture) pool(name string) rados.IOContext {
	f.Helper()
	f.run("ceph", "osd", "pool", "create", name, "8")
	f.run("ceph", "osd", "pool", "application", "enable", name, "rbd")
	f.run("rbd", "mirror", "pool", "enable", name, "image")
	if err := f.cluster.WaitForLatestMap(f.Context()); err != nil {
		f.Fatal(err)
	}
	io, err := f.cluster.Open(f.Context(), name, "")
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(io.Close)
	return io
}

func (f *fixture) run(command string, args ...string) string {
	f.Helper()
	cmd := exec.CommandContext(f.Context(), command, append([]string{"-c", f.conf}, args...)...)
	cmd.Env = append(os.Environ(), "CEPH_ARGS=")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		f.Fatalf("%s %s: %v\n%s%s", command, strings.Join(args, " "), err, &stdout, &stderr)
	}
	return stdout.String()
}

func (f *fixture) sum(what string) string {
	f.Helper()
	file := filepath.Join(f.TempDir(), "export")
	f.run("rbd", "export", "--no-progress", what, file)
	in, err := os.Open(file)
	if err != nil {
		f.Fatal(err)
	}
	defer in.Close()
	h := md5.New()
	n, err := io.Copy(h, in)
	if err != nil {
		f.Fatal(err)
	}
	_ = os.Remove(file)
	return fmt.Sprintf("%d bytes %x", n, h.Sum(nil))
}

// diff is what differs between two states of an image; from may be empty.
func (f *fixture) diff(what, from string) string {
	args := []string{"diff", "--format", "json", what}
	if from != "" {
		args = append(args, "--from-snap", from)
	}
	return f.run("rbd", args...)
}

// source is a remote image and the test's knowledge of it.
type source struct {
	f      *fixture
	name   string
	id     string
	handle *goceph.Image
	rng    *rand.Rand
	snaps  []string
	made   int
}

func (f *fixture) source(seed uint64, features []string, args ...string) *source {
	f.Helper()
	s := &source{f: f, name: "remote-" + uuid.NewString()[:8], rng: rand.New(rand.NewPCG(seed, seed))}
	create := append([]string{"create", "--size", "3M", remotePool + "/" + s.name}, args...)
	for _, feature := range features {
		create = append(create, "--image-feature", feature)
	}
	f.run("rbd", create...)
	native, _ := librados.Native(f.remote)
	var err error
	if s.handle, err = goceph.OpenImage(native, s.name, goceph.NoSnapshot); err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = s.handle.Close() })
	if s.id, err = s.handle.GetId(); err != nil {
		f.Fatal(err)
	}
	return s
}

// work does random things to the image.
func (s *source) work(steps int) {
	s.f.Helper()
	check := func(what string, err error) {
		if err != nil {
			s.f.Fatalf("%s: %v", what, err)
		}
	}
	for range steps {
		size, err := s.handle.GetSize()
		check("size", err)
		at := s.rng.Uint64N(size)
		n := min(1+s.rng.Uint64N(150<<10), size-at)
		switch k := s.rng.IntN(20); {
		case k < 9:
			data := make([]byte, n)
			for i := range data {
				data[i] = byte(s.rng.Uint32())
			}
			if s.rng.IntN(3) == 0 { // with a hole of zeros
				clear(data[n/4 : n/2])
			}
			_, err := s.handle.WriteAt(data, int64(at))
			check("write", err)
		case k < 10:
			_, err := s.handle.WriteAt(make([]byte, n), int64(at))
			check("write zeros", err)
		case k < 14:
			_, err := s.handle.Discard(at, n)
			check("discard", err)
		case k < 16:
			check("resize", s.handle.Resize(1<<20+s.rng.Uint64N(4<<20)))
		case k < 19:
			s.made++
			name := fmt.Sprint("s", s.made)
			check("flush", s.handle.Flush())
			_, err := s.handle.CreateSnapshot(name)
			check("create snapshot", err)
			s.snaps = append(s.snaps, name)
		case len(s.snaps) > 2:
			i := s.rng.IntN(len(s.snaps))
			check("remove snapshot", s.handle.GetSnapshot(s.snaps[i]).Remove())
			s.snaps = append(s.snaps[:i:i], s.snaps[i+1:]...)
		}
	}
	check("flush", s.handle.Flush())
}

// target makes a local image like the source.
func (f *fixture) target(s *source) *image.Image {
	f.Helper()
	h, err := image.ReadHeader(f.Context(), f.remote, s.id)
	if err != nil {
		f.Fatal(err)
	}
	spec := image.CreateSpec{
		ID: image.NewID(f.cluster), GlobalID: uuid.NewString(), RemoteMirrorUUID: uuid.NewString(),
		Size: h.Size, Order: h.Layout.Order, Features: h.Features | rbd.FeatureJournaling | rbd.FeatureExclusiveLock,
		StripeUnit: h.Layout.StripeUnit, StripeCount: h.Layout.StripeCount,
	}
	spec.Name = "local-" + spec.ID
	if _, err := image.Create(f.Context(), f.local, spec); err != nil {
		f.Fatal(err)
	}
	return f.open(spec.ID)
}

func (f *fixture) open(id string) *image.Image {
	f.Helper()
	im, err := image.Open(f.Context(), f.local, id, image.Options{Lock: lock.Options{DeadGrace: 10 * time.Millisecond, RetryDelay: 10 * time.Millisecond}})
	if err != nil {
		f.Fatal(err)
	}
	return im
}

type remoteSnapshots struct {
	io rados.IOContext
	id string
}

func (r remoteSnapshots) Create(ctx context.Context, name string) error {
	return librbd.CreateSnapshot(ctx, r.io, r.id, name)
}

func (r remoteSnapshots) Remove(ctx context.Context, name string) error {
	return librbd.RemoveSnapshot(ctx, r.io, r.id, name)
}

// job is a sync whose record is kept in *meta.
func (f *fixture) job(s *source, local Local, meta *wire.MirrorPeerClientMeta) Job {
	return Job{
		Remote: f.remote, RemoteID: s.id, Snapshots: remoteSnapshots{f.remote, s.id},
		Local: local, LocalPool: f.local, MirrorUUID: "0f0f", Meta: *meta,
		Save: func(_ context.Context, m wire.MirrorPeerClientMeta) error {
			// What is stored must survive its encoding.
			back, err := wire.DecodeClientData(wire.EncodeClientData(m))
			if err != nil {
				return err
			}
			*meta = back.(wire.MirrorPeerClientMeta)
			return nil
		},
		Checkpoint: 5 * time.Millisecond,
	}
}

// compare fails the test unless the local image equals the remote one in everything
// that can be seen of it. The local image is closed.
func (f *fixture) compare(s *source, im *image.Image, meta wire.MirrorPeerClientMeta) {
	f.Helper()
	if err := im.Close(f.Context()); err != nil {
		f.Fatal(err)
	}
	name, err := image.Name(f.Context(), f.local, im.ID())
	if err != nil {
		f.Fatal(err)
	}
	remote, local := remotePool+"/"+s.name, localPool+"/"+name
	if meta.State != wire.PeerReplaying || len(meta.SyncPoints) != 0 {
		f.Errorf("record: %+v", meta)
	}
	from := ""
	for _, snap := range append(s.snaps[:len(s.snaps):len(s.snaps)], "") {
		at := ""
		if snap != "" {
			at = "@" + snap
		}
		if want, got := f.sum(remote+at), f.sum(local+at); want != got {
			f.Errorf("%q: remote has %s, local %s", at, want, got)
		}
		if d := cmp.Diff(f.diff(remote+at, from), f.diff(local+at, from)); d != "" {
			f.Errorf("rbd diff %q from %q: -remote +local\n%s", at, from, d)
		}
		from = snap
	}
	h, err := image.ReadHeader(f.Context(), f.local, im.ID())
	if err != nil {
		f.Fatal(err)
	}
	f.checkSnapshots(s, h, meta)
	if !h.Features.Has(rbd.FeatureObjectMap) {
		return
	}
	// rbd checks object maps of primary images only.
	f.run("rbd", "mirror", "image", "promote", "--force", local)
	f.run("rbd", "object-map", "check", "--no-progress", local)
	for _, snap := range h.Snapshots {
		f.run("rbd", "object-map", "check", "--no-progress", local+"@"+snap.Name)
	}
	if h, err = image.ReadHeader(f.Context(), f.local, im.ID()); err != nil {
		f.Fatal(err)
	}
	if h.Flags != 0 {
		f.Errorf("the local image has flags %v", h.Flags)
	}
	for _, snap := range h.Snapshots {
		if snap.Flags != 0 {
			f.Errorf("the local snapshot %s has flags %v", snap.Name, snap.Flags)
		}
	}
}

// checkSnapshots compares names, sizes and the recorded ids of the snapshots. The
// sync point has a local copy: its removal comes by the journal.
func (f *fixture) checkSnapshots(s *source, local *image.Header, meta wire.MirrorPeerClientMeta) {
	f.Helper()
	remote, err := image.ReadHeader(f.Context(), f.remote, s.id)
	if err != nil {
		f.Fatal(err)
	}
	for _, r := range remote.Snapshots {
		l := local.SnapshotByID(ceph.SnapID(meta.SnapSeqs[uint64(r.ID)]))
		if l == nil || l.Name != r.Name || l.ImageSize != r.ImageSize || l.Protection != r.Protection {
			f.Errorf("snapshot %+v has the local copy %+v", r, l)
		}
		if strings.HasPrefix(r.Name, ".rbd-mirror.") {
			f.Errorf("the sync point %s was left on the remote image", r.Name)
		}
	}
	for _, l := range local.Snapshots {
		known := false
		for _, id := range meta.SnapSeqs {
			known = known || ceph.SnapID(id) == l.ID
		}
		if !known {
			f.Errorf("local snapshot %s is in no record", l.Name)
		}
	}
	if local.Size != remote.Size {
		f.Errorf("%d bytes, the remote image has %d", local.Size, remote.Size)
	}
}

var allFeatures = []string{"layering", "exclusive-lock", "object-map", "fast-diff", "deep-flatten", "journaling"}

func TestLiveSync(t *testing.T) {
	for name, tc := range map[string]struct {
		features []string
		args     []string
	}{
		"all features":      {allFeatures, []string{"--object-size", "64K"}},
		"large objects":     {allFeatures, nil},
		"without fast-diff": {[]string{"layering", "exclusive-lock", "object-map", "journaling"}, []string{"--object-size", "64K"}},
		"without maps":      {[]string{"layering", "exclusive-lock", "journaling"}, []string{"--object-size", "128K"}},
		"striped":           {append([]string{"striping"}, allFeatures...), []string{"--object-size", "64K", "--stripe-unit", "4096", "--stripe-count", "3"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := setUp(t)
			s := f.source(uint64(len(name)), tc.features, tc.args...)
			if err := s.handle.SetMetadata("note", "value"); err != nil {
				t.Fatal(err)
			}
			s.work(60)
			if len(s.snaps) > 0 {
				if err := s.handle.GetSnapshot(s.snaps[0]).Protect(); err != nil {
					t.Fatal(err)
				}
				defer func() { _ = s.handle.GetSnapshot(s.snaps[0]).Unprotect() }()
			}
			im := f.target(s)
			var meta wire.MirrorPeerClientMeta
			job := f.job(s, im, &meta)
			var last Progress
			job.Progress = func(p Progress) { last = p }
			got, err := Run(t.Context(), job)
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(got, meta); d != "" {
				t.Errorf("the record returned is not the one saved: %s", d)
			}
			if last.ObjectsDone != last.ObjectsTotal || last.ObjectsTotal == 0 || last.BytesWritten == 0 {
				t.Errorf("progress ended with %+v", last)
			}
			t.Logf("%d snapshots, %+v", len(s.snaps), last)
			if v := im.Header().Metadata["note"]; string(v) != "value" {
				t.Errorf("metadata %q", v)
			}
			f.compare(s, im, meta)
		})
	}
}

var errKilled = fmt.Errorf("killed by the test: %w", syscall.ETIMEDOUT)

// mortal is a Local that dies after some changes; the last of them may still happen.
type mortal struct {
	*image.Image
	left *atomic.Int64
	late bool // the change at the end happens, its answer is lost
}

func (m mortal) spend(do func() error) error {
	left := m.left.Add(-1)
	if left < 0 {
		if left == -1 && m.late {
			_ = do()
		}
		return errKilled
	}
	return do()
}

func (m mortal) WriteObject(ctx context.Context, n image.ObjectNumber, op *rados.WriteOp) error {
	return m.spend(func() error { return m.Image.WriteObject(ctx, n, op) })
}

func (m mortal) SetObjectMapState(ctx context.Context, snap ceph.SnapID, start, end image.ObjectNumber, state rbd.ObjectState) error {
	return m.spend(func() error { return m.Image.SetObjectMapState(ctx, snap, start, end, state) })
}

func (m mortal) SnapCreateWithSize(ctx context.Context, ns rbd.SnapshotNamespace, name string, size uint64, share image.Sharing) (id ceph.SnapID, out image.Outcome, err error) {
	err = m.spend(func() error {
		id, out, err = m.Image.SnapCreateWithSize(ctx, ns, name, size, share)
		return err
	})
	return id, out, err
}

type mortalSnapshots struct {
	Snapshots
	mortal
}

func (m mortalSnapshots) Create(ctx context.Context, name string) error {
	return m.spend(func() error { return m.Snapshots.Create(ctx, name) })
}

func (m mortalSnapshots) Remove(ctx context.Context, name string) error {
	return m.spend(func() error { return m.Snapshots.Remove(ctx, name) })
}

// A sync that is killed again and again, while the remote image changes and its
// snapshots come and go, ends with the right image.
func TestLiveSyncKilled(t *testing.T) {
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			f := setUp(t)
			features := allFeatures
			if seed%3 == 2 {
				features = []string{"layering", "exclusive-lock", "journaling"}
			}
			s := f.source(100+seed, features, "--object-size", "64K")
			s.work(50)
			im := f.target(s)
			var meta wire.MirrorPeerClientMeta
			kills := 0
			for ; ; kills++ {
				m := mortal{Image: im, left: new(atomic.Int64), late: s.rng.IntN(2) == 0}
				m.left.Store(int64(s.rng.IntN(60 * (kills + 1))))
				job := f.job(s, m, &meta)
				job.Snapshots = mortalSnapshots{job.Snapshots, m}
				save := job.Save
				job.Save = func(ctx context.Context, meta wire.MirrorPeerClientMeta) error {
					return m.spend(func() error { return save(ctx, meta) })
				}
				_, err := Run(t.Context(), job)
				if err == nil {
					break
				}
				if !errors.Is(err, errKilled) {
					t.Fatalf("after %d kills: %v", kills, err)
				}
				if err := im.Close(t.Context()); err != nil {
					t.Fatal(err)
				}
				im = f.open(im.ID())
				switch s.rng.IntN(4) {
				case 0: // an operator removes the sync point
					if len(meta.SyncPoints) > 0 {
						_ = librbd.RemoveSnapshot(t.Context(), f.remote, s.id, meta.SyncPoints[0].SnapName)
					}
					s.work(5)
				case 1:
					if len(s.snaps) > 2 {
						if err := s.handle.GetSnapshot(s.snaps[1]).Remove(); err != nil {
							t.Fatal(err)
						}
						s.snaps = append(s.snaps[:1:1], s.snaps[2:]...)
					}
				case 2: // the first gets the last one's name, which is free then
					if last := len(s.snaps) - 1; last > 1 {
						name := s.snaps[last]
						if err := s.handle.GetSnapshot(name).Remove(); err != nil {
							t.Fatal(err)
						}
						f.run("rbd", "snap", "rename", remotePool+"/"+s.name+"@"+s.snaps[0], remotePool+"/"+s.name+"@"+name)
						s.snaps = append([]string{name}, s.snaps[1:last]...)
					}
				}
			}
			t.Logf("%d kills, %d snapshots", kills, len(s.snaps))
			// What the remote image got after the sync point would come by the journal,
			// as would the removal of snapshots. Without a replay, sync once more.
			meta = wire.MirrorPeerClientMeta{SnapSeqs: meta.SnapSeqs, SyncObjectCount: meta.SyncObjectCount}
			if _, err := Run(t.Context(), f.job(s, im, &meta)); err != nil {
				t.Fatal(err)
			}
			f.sameNames(s, im)
			f.compareContents(s, im)
		})
	}
}

// sameNames compares the snapshots behind a sync that began at a new sync point: no event
// before that comes by the journal any more. Of all sync points only the last has a copy.
func (f *fixture) sameNames(s *source, im *image.Image) {
	f.Helper()
	var here []string
	points := 0
	for _, snap := range im.Header().Snapshots {
		if strings.HasPrefix(snap.Name, ".rbd-mirror.") {
			points++
			continue
		}
		here = append(here, snap.Name)
	}
	there := slices.Clone(s.snaps)
	slices.Sort(here)
	slices.Sort(there)
	if !slices.Equal(here, there) || points != 1 {
		f.Errorf("snapshots %q and %d sync points, want %q and 1", here, points, there)
	}
}

// compareContents compares what clients read.
func (f *fixture) compareContents(s *source, im *image.Image) {
	f.Helper()
	if err := im.Close(f.Context()); err != nil {
		f.Fatal(err)
	}
	name, err := image.Name(f.Context(), f.local, im.ID())
	if err != nil {
		f.Fatal(err)
	}
	for _, snap := range append(s.snaps[:len(s.snaps):len(s.snaps)], "") {
		at := ""
		if snap != "" {
			at = "@" + snap
		}
		if want, got := f.sum(remotePool+"/"+s.name+at), f.sum(localPool+"/"+name+at); want != got {
			f.Errorf("%q: remote has %s, local %s", at, want, got)
		}
	}
}

// A sync point that is removed during the copy is noticed, whatever was read of it.
func TestLiveSyncPointRemoved(t *testing.T) {
	f := setUp(t)
	s := f.source(7, allFeatures, "--object-size", "64K")
	s.work(30)
	im := f.target(s)
	var meta wire.MirrorPeerClientMeta
	job := f.job(s, im, &meta)
	job.Limits.Objects = 1
	removed := false
	save := job.Save
	job.Save = func(ctx context.Context, m wire.MirrorPeerClientMeta) error {
		if err := save(ctx, m); err != nil {
			return err
		}
		if len(m.SnapSeqs) > 0 && !removed { // the copy of the objects begins
			removed = true
			return librbd.RemoveSnapshot(ctx, f.remote, s.id, m.SyncPoints[0].SnapName)
		}
		return nil
	}
	_, err := Run(t.Context(), job)
	var gone *SyncPointError
	if !errors.As(err, &gone) || meta.State != wire.PeerSyncing {
		t.Fatalf("error %v, record %+v", err, meta)
	}
	job.Meta, job.Save = meta, save
	if _, err := Run(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	f.compareContents(s, im)
}

func TestLiveSyncCancelled(t *testing.T) {
	f := setUp(t)
	s := f.source(8, allFeatures, "--object-size", "64K")
	s.work(30)
	im := f.target(s)
	var meta wire.MirrorPeerClientMeta
	ctx, cancel := context.WithCancel(t.Context())
	job := f.job(s, im, &meta)
	save := job.Save
	job.Save = func(ctx context.Context, m wire.MirrorPeerClientMeta) error {
		if len(m.SnapSeqs) > 0 {
			cancel()
		}
		return save(ctx, m)
	}
	start := time.Now()
	if _, err := Run(ctx, job); !errors.Is(err, context.Canceled) || time.Since(start) > 10*time.Second {
		t.Errorf("%v after %v", err, time.Since(start))
	}
	job.Meta, job.Save = meta, save
	if _, err := Run(t.Context(), job); err != nil {
		t.Fatal(err)
	}
	f.compare(s, im, meta)
}

func TestLiveSyncOtherLayout(t *testing.T) {
	f := setUp(t)
	a := f.source(9, allFeatures, "--object-size", "64K")
	b := f.source(9, allFeatures, "--object-size", "128K")
	im := f.target(a)
	defer im.Close(t.Context())
	var meta wire.MirrorPeerClientMeta
	var layout *LayoutError
	if _, err := Run(t.Context(), f.job(b, im, &meta)); !errors.As(err, &layout) || len(meta.SyncPoints) != 0 {
		t.Errorf("error %v, record %+v", err, meta)
	}
}
