package harness

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/lab"
)

// AssertObjectMap fails the test unless the head's object map on the cluster names exactly the objects that exist and
// is not flagged invalid. It reads both itself: rbd object-map check refuses a non-primary image.
func (i *Image) AssertObjectMap(t testing.TB, c *lab.Cluster) {
	t.Helper()
	info := i.InfoOn(t, c)
	if len(info.Flags) > 0 {
		t.Errorf("%s on %s is flagged %v", i.Spec(), c.Name(), info.Flags)
	}
	m, err := rbd.DecodeObjectMap(i.ReadObject(t, c, "rbd_object_map."+info.ID))
	if err != nil {
		t.Fatalf("object map of %s on %s: %v", i.Spec(), c.Name(), err)
	}
	if want := (info.Size + 1<<info.Order - 1) >> info.Order; m.Size() != want {
		t.Errorf("object map of %s on %s has %d objects, want %d", i.Spec(), c.Name(), m.Size(), want)
	}
	existing := i.heads(t, c, info, i.DataObjects(t, c))
	for n := range m.Size() {
		state, there := m.At(n), existing[n]
		mapped := state == rbd.ObjectExists || state == rbd.ObjectExistsClean
		if state == rbd.ObjectPending || there != mapped {
			t.Errorf("%s on %s: object %d exists: %v, its map says %s", i.Spec(), c.Name(), n, there, state)
		}
	}
}

// heads tells which of the image's data objects there are: they are listed also where only their snapshots' clones are left.
func (i *Image) heads(t testing.TB, c *lab.Cluster, info Info, numbers []uint64) map[uint64]bool {
	t.Helper()
	conn, err := rados.NewConnWithUser("admin")
	if err != nil {
		t.Fatal(err)
	}
	if err = conn.ReadConfigFile(c.Conf()); err == nil {
		err = conn.Connect()
	}
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Shutdown()
	pool := i.Pool.Name
	if info.DataPool != "" {
		pool = info.DataPool
	}
	ioctx, err := conn.OpenIOContext(pool)
	if err != nil {
		t.Fatal(err)
	}
	defer ioctx.Destroy()
	ioctx.SetNamespace(i.Pool.Namespace)
	there := map[uint64]bool{}
	for _, n := range numbers {
		switch _, err := ioctx.Stat(fmt.Sprintf("%s.%016x", info.Prefix, n)); {
		case err == nil:
			there[n] = true
		case !errors.Is(err, rados.ErrNotFound):
			t.Fatal(err)
		}
	}
	return there
}

// AssertObjectMapCheck runs rbd object-map check, which a primary image allows, on the head and all snapshots.
func (i *Image) AssertObjectMapCheck(t testing.TB, c *lab.Cluster) {
	t.Helper()
	specs := []string{i.Spec()}
	for _, s := range i.SnapsOn(t, c) {
		specs = append(specs, i.Spec()+"@"+s.Name)
	}
	for _, spec := range specs {
		Run(t, c, "rbd", "object-map", "check", "--no-progress", spec)
		var info Info
		decode(t, Run(t, c, "rbd", "info", "--format", "json", spec), &info)
		if len(info.Flags) > 0 {
			t.Errorf("%s on %s: %s", spec, c.Name(), fmt.Sprint(info.Flags))
		}
	}
}
