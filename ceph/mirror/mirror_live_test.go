//go:build live

package mirror_test

import (
	"context"
	"errors"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

type acknowledge struct{}

func (acknowledge) Notified(n rados.Notification) { n.Ack(nil) }
func (acknowledge) WatchLost(error)               {}

// TestLiveCalls goes through all calls on a pool of its own.
func TestLiveCalls(t *testing.T) {
	ctx := t.Context()
	cluster := harness.SharedPair(t).Secondary
	if err := cluster.CreatePool(ctx, "calls"); err != nil {
		t.Fatal(err)
	}
	conn, err := librados.Connect(ctx, librados.Config{ConfFile: cluster.Conf()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.WaitForLatestMap(ctx); err != nil {
		t.Fatal(err)
	}
	io, err := conn.Open(ctx, "calls", "")
	if err != nil {
		t.Fatal(err)
	}
	defer io.Close()

	tell := func(want error, c class.Call) {
		t.Helper()
		if err := rados.Tell(ctx, io, mirror.Object, c); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", c.Method, err, want)
		}
	}
	missing := func(err error) {
		t.Helper()
		if !errors.Is(err, syscall.ENOENT) {
			t.Errorf("%v, want ENOENT", err)
		}
	}

	// Mode and uuid.
	_, err = rados.Ask(ctx, io, mirror.Object, mirror.GetMode())
	missing(err)
	_, err = rados.Ask(ctx, io, mirror.Object, mirror.GetUUID())
	missing(err)
	_, err = rados.Ask(ctx, io, mirror.Object, mirror.ImageList("", 5))
	missing(err)
	tell(syscall.EINVAL, mirror.SetMode(mirror.ModePool)) // no uuid yet
	tell(nil, mirror.SetUUID("our-uuid"))
	tell(nil, mirror.SetMode(mirror.ModePool))
	tell(syscall.EINVAL, mirror.SetUUID("other"))
	if m := ask(t, io, mirror.Object, mirror.GetMode()); m != mirror.ModePool {
		t.Errorf("%v", m)
	}
	if u := ask(t, io, mirror.Object, mirror.GetUUID()); u != "our-uuid" {
		t.Errorf("%q", u)
	}
	if _, err := rados.Ask(ctx, io, mirror.Object, mirror.GetRemoteNamespace()); !errors.Is(err, syscall.EOPNOTSUPP) && !errors.Is(err, syscall.ENOENT) {
		t.Errorf("remote namespace: %v", err)
	}

	// Peers.
	peer := mirror.Peer{UUID: "p", Direction: mirror.DirectionRX, SiteName: "s", ClientName: "client.c"}
	tell(nil, mirror.PeerAdd(peer))
	tell(syscall.ESTALE, mirror.PeerAdd(peer))
	tell(syscall.EEXIST, mirror.PeerAdd(mirror.Peer{UUID: "q", SiteName: "s", ClientName: "client.c"}))
	tell(nil, mirror.PeerSetClient("p", "client.d"))
	tell(nil, mirror.PeerSetSite("p", "t"))
	tell(nil, mirror.PeerSetDirection("p", mirror.DirectionRXTX))
	tell(nil, mirror.PeerPing("t", "far-uuid"))
	tell(nil, mirror.PeerPing("new", "new-uuid"))
	peers := ask(t, io, mirror.Object, mirror.PeerList())
	slices.SortFunc(peers, func(a, b mirror.Peer) int { return len(b.ClientName) - len(a.ClientName) })
	want := []mirror.Peer{
		{UUID: "p", Direction: mirror.DirectionRXTX, SiteName: "t", ClientName: "client.d", MirrorUUID: "far-uuid"},
		{Direction: mirror.DirectionTX, SiteName: "new", MirrorUUID: "new-uuid"},
	}
	want[1].UUID = peers[len(peers)-1].UUID
	if d := cmp.Diff(want, peers, cmpopts.IgnoreFields(mirror.Peer{}, "LastSeen")); d != "" {
		t.Errorf("-want +got\n%s", d)
	}
	if time.Since(peers[0].LastSeen).Abs() > time.Minute {
		t.Errorf("seen %v", peers[0].LastSeen)
	}

	// Images and statuses.
	record := mirror.Image{Mode: mirror.ImageJournal, GlobalID: "g", State: mirror.ImageEnabled}
	tell(nil, mirror.ImageSet("i", record))
	tell(syscall.EEXIST, mirror.ImageSet("j", record))
	tell(syscall.EINVAL, mirror.ImageSet("i", mirror.Image{GlobalID: "h", State: mirror.ImageEnabled}))
	tell(syscall.ENOENT, mirror.ImageSet("j", mirror.Image{GlobalID: "h", State: mirror.ImageDisabling}))
	tell(syscall.EBUSY, mirror.ImageRemove("i"))
	if got := ask(t, io, mirror.Object, mirror.ImageGet("i")); got != record {
		t.Errorf("%+v", got)
	}
	if got := ask(t, io, mirror.Object, mirror.ImageGetID("g")); got != "i" {
		t.Errorf("%q", got)
	}
	if got := ask(t, io, mirror.Object, mirror.ImageList("", 5)); len(got) != 1 || got["i"] != "g" {
		t.Errorf("%v", got)
	}
	_, err = rados.Ask(ctx, io, mirror.Object, mirror.StatusGet("g"))
	missing(err)
	tell(nil, mirror.StatusSet("g", mirror.Status{State: mirror.StatusReplaying, Description: "d"}))
	tell(nil, mirror.StatusSet("g", mirror.Status{MirrorUUID: "far-uuid", State: mirror.StatusStopped}))
	sites := func(up bool, local string) {
		t.Helper()
		got := ask(t, io, mirror.Object, mirror.StatusGet("g"))
		if len(got.Sites) != 2 || got.Sites[0].String() != local || got.Sites[0].Description != "d" || got.Sites[0].Up != up ||
			got.Sites[1].MirrorUUID != "far-uuid" || got.Sites[1].Up != up || time.Since(got.Sites[0].LastUpdate).Abs() > time.Minute {
			t.Errorf("%+v", got)
		}
		list := ask(t, io, mirror.Object, mirror.StatusList("", 5))
		if list.Images["i"] != record || cmp.Diff(list.Statuses["i"], got) != "" {
			t.Errorf("%+v", list)
		}
	}
	sites(false, "down+replaying")
	if _, err := rados.Ask(ctx, io, mirror.Object, mirror.InstanceGet("g")); !errors.Is(err, syscall.ESTALE) {
		t.Errorf("the instance of a writer that does not watch: %v", err)
	}
	watch, err := io.Watch(ctx, mirror.Object, 0, acknowledge{})
	if err != nil {
		t.Fatal(err)
	}
	sites(true, "up+replaying")
	tell(nil, mirror.StatusRemoveDown())
	sites(true, "up+replaying")
	instance := ask(t, io, mirror.Object, mirror.InstanceGet("g"))
	if uint64(instance.Name.Num) != conn.InstanceID() || instance != ask(t, io, mirror.Object, mirror.InstanceList("", 5))["i"] {
		t.Errorf("%+v, want client.%d", instance, conn.InstanceID())
	}
	if n := ask(t, io, mirror.Object, mirror.StatusSummary(nil)); len(n) != 1 {
		t.Errorf("%v", n)
	}
	if err := watch.Close(context.WithoutCancel(ctx)); err != nil {
		t.Error(err)
	}
	tell(nil, mirror.StatusRemoveDown())
	_, err = rados.Ask(ctx, io, mirror.Object, mirror.StatusGet("g"))
	missing(err)
	tell(nil, mirror.StatusSet("g", mirror.Status{State: mirror.StatusError}))
	tell(nil, mirror.StatusRemove("g"))
	_, err = rados.Ask(ctx, io, mirror.Object, mirror.StatusGet("g"))
	missing(err)
	record.State = mirror.ImageDisabling
	tell(nil, mirror.ImageSet("i", record))
	tell(nil, mirror.ImageRemove("i"))
	tell(syscall.ENOENT, mirror.ImageRemove("i"))

	// Placement.
	leader := func(c class.Call) {
		t.Helper()
		if err := rados.Tell(ctx, io, mirror.LeaderObject, c); err != nil {
			t.Errorf("%s: %v", c.Method, err)
		}
	}
	place := mirror.ImageMap{InstanceID: "5", MappedTime: time.Unix(1700000000, 7), Data: mirror.PolicyData{}.Bytes()}
	leader(mirror.InstancesAdd("5"))
	leader(mirror.InstancesAdd("6"))
	leader(mirror.InstancesRemove("6"))
	leader(mirror.ImageMapUpdate("g", place))
	leader(mirror.ImageMapUpdate("h", place))
	leader(mirror.ImageMapRemove("h"))
	if got := ask(t, io, mirror.LeaderObject, mirror.InstancesList()); !slices.Equal(got, []string{"5"}) {
		t.Errorf("%v", got)
	}
	if d := cmp.Diff(map[string]mirror.ImageMap{"g": place}, ask(t, io, mirror.LeaderObject, mirror.ImageMapList("", 5))); d != "" {
		t.Errorf("-want +got\n%s", d)
	}

	// The end of it.
	tell(syscall.EBUSY, mirror.SetMode(mirror.ModeDisabled))
	for _, p := range peers {
		tell(nil, mirror.PeerRemove(p.UUID))
	}
	tell(nil, mirror.SetMode(mirror.ModeDisabled))
	_, err = rados.Ask(ctx, io, mirror.Object, mirror.GetMode())
	missing(err)
}

func ask[R any](t *testing.T, io rados.IOContext, object string, q class.Query[R]) R {
	t.Helper()
	r, err := rados.Ask(t.Context(), io, object, q)
	if err != nil {
		t.Errorf("%s: %v", q.Method, err)
	}
	return r
}
