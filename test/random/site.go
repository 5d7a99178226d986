package random

import (
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// Site is one side: its cluster, its daemon, and a connection for looking at images through librbd.
type Site struct {
	Cluster *lab.Cluster

	conn    *rados.Conn
	ioctx   []*rados.IOContext // by place
	workers int
	daemon  *harness.Daemon
	tracker *tracker
}

func newSite(t testing.TB, c *lab.Cluster, places []Place, workers int) *Site {
	t.Helper()
	s := &Site{Cluster: c, workers: workers, tracker: track(t)}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	var err error
	s.conn, err = rados.NewConnWithUser("admin")
	must(err)
	must(s.conn.ReadConfigFile(c.Conf()))
	must(s.conn.Connect())
	t.Cleanup(s.conn.Shutdown)
	for _, p := range places {
		io, err := s.conn.OpenIOContext(p.Pool.Name)
		must(err)
		io.SetNamespace(p.Pool.Namespace)
		t.Cleanup(io.Destroy)
		s.ioctx = append(s.ioctx, io)
	}
	harness.KeepServing(t, c)
	return s
}

func (s *Site) String() string { return s.Cluster.Name() }

// start starts the site's daemon, with every message in its log.
func (s *Site) start(t testing.TB) {
	t.Helper()
	// Dead workers are not parked: somebody kills them on purpose.
	flags := []string{"--debug-rbd-mirror", "20", "--rbd-warden-restart-intensity", "10000", "--rbd-warden-restart-max", "2",
		"--rbd-warden-worker-memory-limit", "1G"}
	if s.workers > 0 {
		flags = append(flags, "--rbd-warden-workers", strconv.Itoa(s.workers))
	}
	if harness.TestsUpstream() {
		flags = []string{"--debug-rbd-mirror", "10"}
	}
	s.daemon = harness.StartDaemon(t, s.Cluster, harness.Ours(t), flags...)
	s.tracker.follow(s.daemon, s.Cluster)
}

// Seen is an image as a site has it.
type Seen struct {
	ID          string
	Size        uint64
	Order       int
	StripeUnit  uint64
	StripeCount uint64
	Features    uint64
	Parent      string // POOL/NAMESPACE/IMAGE@SNAPSHOT, or empty
	Meta        map[string]string
	Snaps       []Snap // without digests
	Primary     bool
	GlobalID    string
	Mirror      string // state of the mirroring record, empty where there is none
}

// with opens an image, or a snapshot of it, for reading.
func (s *Site) with(place int, name, snap string, do func(*rbd.Image) error) error {
	image, err := rbd.OpenImageReadOnly(s.ioctx[place], name, snap)
	if err != nil {
		return err
	}
	return errors.Join(do(image), image.Close())
}

// look reads what a site has under a name; an image that is not there is rbd.ErrNotFound.
func (s *Site) look(place int, name string) (seen Seen, err error) {
	err = s.with(place, name, rbd.NoSnapshot, func(image *rbd.Image) (err error) {
		seen, err = seenOf(image)
		return err
	})
	return seen, err
}

func seenOf(image *rbd.Image) (seen Seen, err error) {
	keep := func(e error) {
		if err == nil {
			err = e
		}
	}
	info, e := image.Stat()
	keep(e)
	seen.Order, seen.Size = info.Order, info.Size
	seen.ID, e = image.GetId()
	keep(e)
	seen.StripeUnit, e = image.GetStripeUnit()
	keep(e)
	seen.StripeCount, e = image.GetStripeCount()
	keep(e)
	seen.Features, e = image.GetFeatures()
	keep(e)
	seen.Meta, e = image.ListMetadata()
	keep(e)
	seen.Parent, e = parentOf(image)
	keep(e)
	seen.Snaps, e = snapsOf(image)
	keep(e)
	mirror, e := image.GetMirrorImageInfo()
	keep(e)
	if e == nil && mirror.State != rbd.MirrorImageDisabled {
		seen.Mirror, seen.GlobalID, seen.Primary = mirror.State.String(), mirror.GlobalID, mirror.Primary
	}
	return seen, err
}

// parentOf names the snapshot that an image hangs on.
func parentOf(image *rbd.Image) (string, error) {
	p, err := image.GetParent()
	if errors.Is(err, rbd.ErrNotFound) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%s/%s/%s@%s", p.Image.PoolName, p.Image.PoolNamespace, p.Image.ImageName, p.Snap.SnapName), nil
}

// snapsOf lists a user's snapshots by name.
func snapsOf(image *rbd.Image) ([]Snap, error) {
	listed, err := image.GetSnapshotNames()
	if err != nil {
		return nil, err
	}
	var snaps []Snap
	for _, s := range listed {
		kind, err := image.GetSnapNamespaceType(s.Id)
		if err != nil {
			return nil, err
		}
		if kind != rbd.SnapNamespaceTypeUser {
			continue
		}
		protected, err := image.GetSnapshot(s.Name).IsProtected()
		if err != nil {
			return nil, err
		}
		snaps = append(snaps, Snap{Name: s.Name, Size: s.Size, Protected: protected})
	}
	slices.SortFunc(snaps, func(a, b Snap) int { return strings.Compare(a.Name, b.Name) })
	return snaps, nil
}

// digest reads the head or a snapshot.
func (s *Site) digest(place int, name, snap string) (d harness.Digest, err error) {
	err = s.with(place, name, snap, func(image *rbd.Image) error {
		size, err := image.GetSize()
		if err != nil {
			return err
		}
		sum := md5.New()
		buffer := make([]byte, 4*mib)
		for at := uint64(0); at < size; at += uint64(len(buffer)) {
			part := buffer[:min(uint64(len(buffer)), size-at)]
			if _, err := image.ReadAt(part, int64(at)); err != nil {
				return err
			}
			sum.Write(part)
		}
		d = harness.Digest{Size: int64(size), MD5: hex.EncodeToString(sum.Sum(nil))}
		return nil
	})
	return d, err
}
