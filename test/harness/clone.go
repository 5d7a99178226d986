package harness

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
)

// CloneOptions are how an image is cloned. The zero value is format 2, all Features, in the parent's pool.
type CloneOptions struct {
	Format   int   // rbd_default_clone_format: 1 needs a protected snapshot
	Pool     *Pool // of the clone
	Features string
	Flags    []string // further arguments of rbd clone
}

// Clone makes a clone of the image's snapshot on the primary.
func (i *Image) Clone(t testing.TB, snap, name string, o CloneOptions) *Image {
	t.Helper()
	if o.Format == 0 {
		o.Format = 2
	}
	if o.Pool == nil {
		o.Pool = i.Pool
	}
	if o.Features == "" {
		o.Features = Features
	}
	clone := &Image{Pool: o.Pool, Name: name}
	args := []string{
		"clone", "--rbd-default-clone-format", fmt.Sprint(o.Format), "--image-feature", o.Features,
		i.Spec() + "@" + snap, clone.Spec(),
	}
	Run(t, i.Primary(), "rbd", append(args, o.Flags...)...)
	return clone
}

// Parent is what rbd info says of an image's parent; the zero value says that there is none.
type Parent struct {
	Pool      string `json:"pool"`
	Namespace string `json:"pool_namespace"`
	Image     string `json:"image"`
	Snapshot  string `json:"snapshot"`
	Trash     bool   `json:"trash"`
	Overlap   uint64 `json:"overlap"`
}

// ParentOn reads the parent of the image, or of one of its snapshots if snap is not empty, on a cluster.
func (i *Image) ParentOn(t testing.TB, c *lab.Cluster, snap string) Parent {
	t.Helper()
	spec := i.Spec()
	if snap != "" {
		spec += "@" + snap
	}
	var info struct {
		Parent Parent `json:"parent"`
	}
	decode(t, Run(t, c, "rbd", "info", "--format", "json", spec), &info)
	return info.Parent
}

// ChildrenOn lists the clones of a snapshot on a cluster as rbd names them, sorted by rbd.
func (i *Image) ChildrenOn(t testing.TB, c *lab.Cluster, snap string) string {
	t.Helper()
	var children []struct {
		Pool, Image string
		Namespace   string `json:"pool_namespace"`
	}
	out := Run(t, c, "rbd", "children", "--format", "json", i.Spec()+"@"+snap)
	if err := json.Unmarshal([]byte(out), &children); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	var names []string
	for _, child := range children {
		names = append(names, strings.ReplaceAll(child.Pool+"/"+child.Namespace+"/"+child.Image, "//", "/"))
	}
	return strings.Join(names, " ")
}

// AssertFamily fails the test unless both clusters say the same of the image's parents and of its snapshots' clones.
func (i *Image) AssertFamily(t testing.TB) {
	t.Helper()
	from, to := i.Primary(), i.Secondary()
	for _, snap := range append([]Snap{{}}, i.SnapsOn(t, from)...) {
		if want, got := i.ParentOn(t, from, snap.Name), i.ParentOn(t, to, snap.Name); want != got {
			t.Errorf("parent of %s@%s: %+v, on the secondary %+v", i.Spec(), snap.Name, want, got)
		}
		if snap.Name == "" {
			continue
		}
		if want, got := i.ChildrenOn(t, from, snap.Name), i.ChildrenOn(t, to, snap.Name); want != got {
			t.Errorf("clones of %s@%s: %q, on the secondary %q", i.Spec(), snap.Name, want, got)
		}
	}
}
