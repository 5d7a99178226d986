package replayer_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/journal"
)

// Without a peer, replicas say why nothing happens, and primaries that they are.
func TestStatusesWithoutAPeer(t *testing.T) {
	s := newScene(t, 1, false)
	ctx := t.Context()
	io := must(s.local.Connect().Open(ctx, "rbd", ""))(t)
	for _, name := range []string{"replica", "master"} {
		_, err := image.Create(ctx, io, image.CreateSpec{
			ID: name + "1", Name: name, GlobalID: "global-" + name, RemoteMirrorUUID: "remote-uuid", Size: imageSize, Order: objectOrder,
			Features: rbd.FeatureExclusiveLock | rbd.FeatureJournaling,
		})
		check(t, err)
	}
	j := must(journal.Open(ctx, io, "master1"))(t)
	defer j.Close()
	must(j.AllocateTag(ctx, 0, wire.TagData{MirrorUUID: wire.LocalMirrorUUID}))(t)

	at := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	images := must(replayer.Alone(ctx, io, "rbd", replayer.Absence{
		Here: "south", There: "north", Err: syscall.ETIMEDOUT, Since: at, Attempts: 2, Next: at.Add(time.Minute),
	}))(t)
	want := map[string]string{
		"master": "stopped local image is primary: rbd/master is written on south, which replays nothing into it",
		"replica": "error unable to connect to remote cluster north: connection timed out (the cluster did not answer in time); " +
			"since 2026-03-01 12:00:00 UTC, attempt 3 follows by itself at 2026-03-01 12:01:00 UTC",
	}
	for _, i := range images {
		if got := i.State + " " + i.Description; got != want[i.Name] || i.GlobalID != "global-"+i.Name {
			t.Errorf("%s: %s", i.Name, got)
		}
		delete(want, i.Name)
	}
	if len(want) > 0 {
		t.Errorf("nothing of %v", want)
	}
	if err := j.Unregister(ctx, ""); err != nil {
		t.Fatal(err)
	}
	for _, i := range must(replayer.Alone(ctx, io, "rbd", replayer.Absence{Since: at}))(t) {
		if i.Name == "master" && i.State != "error" {
			t.Errorf("an image that cannot be looked at: %s %s", i.State, strings.ToValidUTF8(i.Description, ""))
		}
	}
}
