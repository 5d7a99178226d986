package harness

import (
	"crypto/md5"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
)

// Features that a test's image has unless it says otherwise: everything that mirroring meets in practice.
const Features = "layering,exclusive-lock,object-map,fast-diff,deep-flatten,journaling"

// Image is a mirrored image, born on the primary.
type Image struct {
	Pool *Pool
	Name string
}

// ImageOptions are arguments of rbd create. The zero value is a 64 MiB image with Features and 4 MiB objects.
type ImageOptions struct {
	SizeMiB  int
	Features string
	// Flags are further arguments of rbd create (--object-size, --stripe-unit, --data-pool, ...).
	Flags []string
}

// Create creates an image on the primary.
func (p *Pool) Create(t testing.TB, name string, o ImageOptions) *Image {
	t.Helper()
	if o.SizeMiB == 0 {
		o.SizeMiB = 64
	}
	if o.Features == "" {
		o.Features = Features
	}
	args := append([]string{"create", "--size", fmt.Sprintf("%dM", o.SizeMiB), "--image-feature", o.Features}, o.Flags...)
	Run(t, p.Pair.Primary, "rbd", append(args, p.Spec()+"/"+name)...)
	return &Image{Pool: p, Name: name}
}

// Spec is the image's name with the pool's.
func (i *Image) Spec() string { return i.Pool.Spec() + "/" + i.Name }

// Primary is the cluster that the image was born on; a failover does not change it.
func (i *Image) Primary() *lab.Cluster { return i.Pool.Pair.Primary }

// Secondary is the other cluster.
func (i *Image) Secondary() *lab.Cluster { return i.Pool.Pair.Secondary }

// Snapshot takes a snapshot on the primary.
func (i *Image) Snapshot(t testing.TB, name string) {
	t.Helper()
	Run(t, i.Primary(), "rbd", "snap", "create", "--no-progress", i.Spec()+"@"+name)
}

// Resize changes the size on the primary.
func (i *Image) Resize(t testing.TB, sizeMiB int) {
	t.Helper()
	Run(t, i.Primary(), "rbd", "resize", "--no-progress", "--allow-shrink", "--size", fmt.Sprintf("%dM", sizeMiB), i.Spec())
}

// Info is what rbd info says of an image.
type Info struct {
	ID          string   `json:"id"`
	Size        uint64   `json:"size"`
	Order       uint8    `json:"order"`
	Prefix      string   `json:"block_name_prefix"`
	DataPool    string   `json:"data_pool"`
	Features    []string `json:"features"`
	OpFeatures  []string `json:"op_features"`
	Flags       []string `json:"flags"`
	StripeUnit  uint64   `json:"stripe_unit"`
	StripeCount uint64   `json:"stripe_count"`
	Mirroring   struct {
		GlobalID string `json:"global_id"`
		State    string `json:"state"`
		Primary  bool   `json:"primary"`
	} `json:"mirroring"`
}

// InfoOn reads the image's properties on a cluster.
func (i *Image) InfoOn(t testing.TB, c *lab.Cluster) Info {
	t.Helper()
	var info Info
	decode(t, Run(t, c, "rbd", "info", "--format", "json", i.Spec()), &info)
	return info
}

// Snap is a user's snapshot as rbd snap ls shows it.
type Snap struct {
	Name      string `json:"name"`
	Size      uint64 `json:"size"`
	Protected string `json:"protected"`
}

// SnapsOn lists the user's snapshots on a cluster, oldest first, the mirroring's own apart.
func (i *Image) SnapsOn(t testing.TB, c *lab.Cluster) []Snap {
	t.Helper()
	var all, users []Snap
	decode(t, Run(t, c, "rbd", "snap", "ls", "--format", "json", i.Spec()), &all)
	for _, s := range all {
		if !strings.HasPrefix(s.Name, ".rbd-mirror.") {
			users = append(users, s)
		}
	}
	return users
}

// Digest is an image's or snapshot's length in bytes and the MD5 of its contents.
type Digest struct {
	Size int64
	MD5  string
}

// DigestOn reads the image (or a snapshot, if snap is not empty) with rbd export.
func (i *Image) DigestOn(t testing.TB, c *lab.Cluster, snap string) Digest {
	t.Helper()
	spec := i.Spec()
	if snap != "" {
		spec += "@" + snap
	}
	cmd := c.Command(t.Context(), "rbd", "export", "--no-progress", spec, "-")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var complaint strings.Builder
	cmd.Stderr = &complaint
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	sum := md5.New()
	size, err := io.Copy(sum, out)
	if waited := cmd.Wait(); waited != nil || err != nil {
		t.Fatalf("rbd export %s on %s: %v %v %s", spec, c.Name(), waited, err, complaint.String())
	}
	return Digest{size, hex.EncodeToString(sum.Sum(nil))}
}

// AssertEqual fails the test unless the image is the same on both clusters: size, user's snapshots, features, and the
// contents of the head and of every snapshot. The journal must have been replayed (WaitReplayed).
func (i *Image) AssertEqual(t testing.TB) {
	t.Helper()
	a, b := i.InfoOn(t, i.Primary()), i.InfoOn(t, i.Secondary())
	if a.Size != b.Size || a.Order != b.Order || fmt.Sprint(a.Features) != fmt.Sprint(b.Features) || a.StripeUnit != b.StripeUnit || a.StripeCount != b.StripeCount {
		t.Errorf("%s differs:\n%s: %+v\n%s: %+v", i.Spec(), i.Primary().Name(), a, i.Secondary().Name(), b)
	}
	snaps, mirrored := i.SnapsOn(t, i.Primary()), i.SnapsOn(t, i.Secondary())
	if fmt.Sprint(snaps) != fmt.Sprint(mirrored) {
		t.Errorf("snapshots of %s differ: %v and %v", i.Spec(), snaps, mirrored)
		return
	}
	for _, snap := range append([]Snap{{}}, snaps...) {
		want, got := i.DigestOn(t, i.Primary(), snap.Name), i.DigestOn(t, i.Secondary(), snap.Name)
		if want != got {
			t.Errorf("contents of %s@%s differ: %+v and %+v", i.Spec(), snap.Name, want, got)
		}
	}
}

// AssertReplica is AssertEqual, and AssertObjectMap of the copy if it has a map.
func (i *Image) AssertReplica(t testing.TB) {
	t.Helper()
	i.AssertEqual(t)
	if slices.Contains(i.InfoOn(t, i.Secondary()).Features, "object-map") {
		i.AssertObjectMap(t, i.Secondary())
	}
}

// AssertEqualAt fails the test unless the named snapshots ("" is the head) have the same contents on both clusters.
func (i *Image) AssertEqualAt(t testing.TB, snaps ...string) {
	t.Helper()
	for _, snap := range snaps {
		if want, got := i.DigestOn(t, i.Primary(), snap), i.DigestOn(t, i.Secondary(), snap); want != got {
			t.Errorf("contents of %s@%s differ: %+v and %+v", i.Spec(), snap, want, got)
		}
	}
}

// decode parses JSON that a program printed.
func decode(t testing.TB, text string, into any) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), into); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
}

// PoolID is a pool's number.
func PoolID(t testing.TB, c *lab.Cluster, pool string) int64 {
	t.Helper()
	var stats []struct {
		ID   int64  `json:"pool_id"`
		Name string `json:"pool_name"`
	}
	decode(t, Run(t, c, "ceph", "osd", "pool", "stats", "--format", "json"), &stats)
	for _, s := range stats {
		if s.Name == pool {
			return s.ID
		}
	}
	t.Fatalf("no pool %s on %s", pool, c.Name())
	return 0
}
