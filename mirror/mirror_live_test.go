//go:build live

package mirror_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// local connects to a cluster with the privileges of a daemon.
func local(t *testing.T, c *lab.Cluster) rados.Cluster {
	t.Helper()
	return connect(t, librados.Config{ConfFile: c.Conf(), ClientName: lab.DaemonUser})
}

func connect(t *testing.T, cfg librados.Config) rados.Cluster {
	t.Helper()
	c, err := librados.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// open opens a pool; it is closed before the connection.
func open(t *testing.T, c rados.Cluster, pool, namespace string) rados.IOContext {
	t.Helper()
	io, err := c.Open(t.Context(), pool, namespace)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(io.Close)
	return io
}

// rbd runs a command and reads its JSON.
func rbd[T any](t *testing.T, c *lab.Cluster, args ...string) (v T) {
	t.Helper()
	out := harness.Run(t, c, "rbd", append(args, "--format", "json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("rbd %v: %v\n%s", args, err, out)
	}
	return v
}

type poolInfo struct {
	Mode     string
	SiteName string `json:"site_name"`
	Peers    []struct {
		UUID       string
		Direction  string
		SiteName   string `json:"site_name"`
		MirrorUUID string `json:"mirror_uuid"`
		ClientName string `json:"client_name"`
		Key        string
		MonHost    string `json:"mon_host"`
	}
}

// TestLivePeersMeet walks the way of a daemon from the local pool to the remote one:
// all that it learns is what "rbd mirror pool info" says.
func TestLivePeersMeet(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.ImageMode)
	ctx := t.Context()
	cluster := local(t, pair.Secondary)

	found, err := mirror.FindPools(ctx, cluster)
	at := slices.IndexFunc(found, func(f mirror.FoundPool) bool { return f.Name == pool.Name })
	if err != nil || at < 0 {
		t.Fatalf("%+v, %v", found, err)
	}
	us := found[at]
	want := rbd[poolInfo](t, pair.Secondary, "mirror", "pool", "info", pool.Name, "--all")
	if us.Err != nil || us.Mode.String() != want.Mode || us.MirrorUUID == "" || us.RemoteNamespace != "" || len(us.Peers) != 1 {
		t.Fatalf("%+v, want %+v", us, want)
	}
	site, err := mirror.SiteName(ctx, cluster)
	if err != nil || site != want.SiteName {
		t.Errorf("site %q, %v, want %q", site, err, want.SiteName)
	}
	peer, wantPeer := us.Peers[0], want.Peers[0]
	if peer.UUID != wantPeer.UUID || peer.SiteName != wantPeer.SiteName || peer.ClientName != wantPeer.ClientName ||
		peer.Direction.String() != wantPeer.Direction {
		t.Errorf("%+v, want %+v", peer, wantPeer)
	}

	conn, err := mirror.ResolvePeer(ctx, cluster, us.ID, peer)
	if err != nil || conn.MonHost != wantPeer.MonHost || conn.Key.Reveal() != wantPeer.Key {
		t.Fatalf("%+v, %v", conn, err)
	}
	far := connect(t, librados.Config{Cluster: conn.SiteName, ConfFile: conn.ConfFile, ClientName: conn.ClientName,
		MonHost: conn.MonHost, Key: conn.Key.Reveal(), Peer: true})
	if far.FSID() != pair.Primary.FSID() {
		t.Fatalf("connected to %s, want %s", far.FSID(), pair.Primary.FSID())
	}

	remote, err := mirror.PingRemote(ctx, open(t, far, pool.Name, ""), site, us.MirrorUUID)
	if err != nil {
		t.Fatal(err)
	}
	there := rbd[poolInfo](t, pair.Primary, "mirror", "pool", "info", pool.Name, "--all")
	if remote.PeerUUID != there.Peers[0].UUID || remote.MirrorUUID == "" || remote.MirrorUUID == us.MirrorUUID {
		t.Errorf("%+v, want the peer of %+v", remote, there)
	}
	if there.Peers[0].MirrorUUID != us.MirrorUUID || there.Peers[0].SiteName != site {
		t.Errorf("the ping left %+v", there.Peers[0])
	}
	primary, err := mirror.ReadPool(ctx, open(t, far, pool.Name, ""))
	if err != nil || primary.Peers[0].LastSeen.IsZero() || time.Since(primary.Peers[0].LastSeen).Abs() > time.Minute {
		t.Errorf("%+v, %v", primary, err)
	}
}

type imageStatus struct {
	Name        string
	State       string
	Description string
	Daemon      *struct {
		ServiceID  string `json:"service_id"`
		InstanceID string `json:"instance_id"`
		DaemonID   string `json:"daemon_id"`
	} `json:"daemon_service"`
	Sites []struct {
		Name        string `json:"site_name"`
		MirrorUUID  string `json:"mirror_uuids"`
		State       string
		Description string
	} `json:"peer_sites"`
}

type poolStatus struct {
	Summary struct {
		Health       string
		DaemonHealth string `json:"daemon_health"`
		ImageHealth  string `json:"image_health"`
	}
	Daemons []struct {
		InstanceID string `json:"instance_id"`
		ClientID   string `json:"client_id"`
		Leader     bool
		Health     string
		Callouts   []string
	}
	Images []imageStatus
}

// events collects what a watch hears.
type events struct {
	mu    sync.Mutex
	lines []string
}

func (e *events) add(format string, args ...any) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.lines = append(e.lines, fmt.Sprintf(format, args...))
}

func (e *events) ModeUpdated(m cephmirror.Mode)           { e.add("mode %v", m) }
func (e *events) ImageUpdated(ev cephmirror.ImageUpdated) { e.add("%s %v", ev.ImageID, ev.State) }
func (e *events) Unreadable(err error)                    { e.add("unreadable %v", err) }
func (e *events) WatchLost(err error)                     { e.add("lost %v", err) }

// waitFor waits until the last lines are these.
func (e *events) waitFor(t *testing.T, want ...string) {
	t.Helper()
	harness.Eventually(t, 20*time.Second, func() string {
		e.mu.Lock()
		defer e.mu.Unlock()
		if n := len(e.lines); n >= len(want) && slices.Equal(e.lines[n-len(want):], want) {
			return ""
		}
		return fmt.Sprintf("heard %q, want %q", e.lines, want)
	})
}

// TestLiveStatusesAreShown follows an image's record and statuses as "rbd" shows them on
// both clusters, up while the writers run and down after, with a daemon beside them.
func TestLiveStatusesAreShown(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.ImageMode)
	ctx := t.Context()
	near := local(t, pair.Secondary)
	io := open(t, near, pool.Name, "")
	us, err := mirror.ReadPool(ctx, io)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := mirror.ResolvePeer(ctx, near, us.ID, us.Peers[0])
	if err != nil {
		t.Fatal(err)
	}
	far := connect(t, librados.Config{Cluster: conn.SiteName, ClientName: conn.ClientName, MonHost: conn.MonHost, Key: conn.Key.Reveal(), Peer: true})
	farIO := open(t, far, pool.Name, "")
	site, err := mirror.SiteName(ctx, near)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mirror.PingRemote(ctx, farIO, site, us.MirrorUUID); err != nil {
		t.Fatal(err)
	}

	// An image on both sides, with one global id.
	spec := pool.Name + "/disk"
	for _, c := range []*lab.Cluster{pair.Primary, pair.Secondary} {
		harness.Run(t, c, "rbd", "create", spec, "--size", "4M", "--image-feature", "exclusive-lock,journaling")
	}
	harness.Run(t, pair.Primary, "rbd", "mirror", "image", "enable", spec, "journal")
	id := rbd[struct{ ID string }](t, pair.Secondary, "info", spec).ID
	var globalID string
	if err := mirror.ListImages(ctx, farIO, func(_, global string) bool { globalID = global; return true }); err != nil || globalID == "" {
		t.Fatalf("%q, %v", globalID, err)
	}

	heard := &events{}
	watch, err := mirror.Watch(ctx, io, heard)
	if err != nil {
		t.Fatal(err)
	}
	for _, state := range []cephmirror.ImageState{cephmirror.ImageCreating, cephmirror.ImageEnabled} {
		if err := mirror.SetImage(ctx, io, id, cephmirror.Image{GlobalID: globalID, State: state}); err != nil {
			t.Fatal(err)
		}
	}
	heard.waitFor(t, id+" creating", id+" enabled")
	if found, record, err := mirror.FindImage(ctx, io, globalID); found != id || record.State != cephmirror.ImageEnabled || err != nil {
		t.Fatalf("%s, %+v, %v", found, record, err)
	}

	serviceID, metadata := mirror.ServiceMetadata(strings.TrimPrefix(lab.DaemonUser, "client."), near.InstanceID())
	if err := near.RegisterService(ctx, mirror.ServiceName, serviceID, metadata); err != nil {
		t.Fatal(err)
	}
	one := uint64(1)
	if err := near.UpdateService(ctx, mirror.ServiceStatus(map[int64]mirror.ServicePool{us.ID: {Name: pool.Name,
		ImageCounts: mirror.ImageCounts{Assigned: &one, Local: &one, Remote: &one}, InstanceID: near.InstanceID(), Leader: true}})); err != nil {
		t.Fatal(err)
	}

	writers := mirror.StatusWriters{
		mirror.NewStatusWriter(mirror.StatusConfig{IO: io}),
		mirror.NewStatusWriter(mirror.StatusConfig{IO: farIO, MirrorUUID: us.MirrorUUID}),
	}
	running, stop := context.WithCancel(ctx)
	defer stop()
	var done sync.WaitGroup
	for _, w := range writers {
		done.Go(func() {
			if err := w.Run(running); err != nil {
				t.Error(err)
			}
		})
	}
	shown := func(state, description string) string {
		here := rbd[imageStatus](t, pair.Secondary, "mirror", "image", "status", spec)
		there := rbd[imageStatus](t, pair.Primary, "mirror", "image", "status", spec)
		switch {
		case here.State != state || here.Description != description:
			return fmt.Sprintf("secondary: %+v, writer %+v", here, writers[0].Condition())
		case len(there.Sites) != 1 || there.Sites[0].State != state || there.Sites[0].Description != description || there.Sites[0].Name != site:
			return fmt.Sprintf("primary: %+v, writer %+v", there, writers[1].Condition())
		}
		return ""
	}
	for _, s := range []struct {
		state       cephmirror.StatusState
		description string
	}{{cephmirror.StatusSyncing, "bootstrapping"}, {cephmirror.StatusReplaying, `replaying, {"entries_behind_primary":0}`}, {cephmirror.StatusError, "split-brain detected"}} {
		writers.Set(globalID, s.state, s.description)
		harness.Eventually(t, 20*time.Second, func() string { return shown("up+"+s.state.String(), s.description) })
	}

	writers.Set(globalID, cephmirror.StatusReplaying, "idle")
	harness.Eventually(t, 30*time.Second, func() string {
		s := rbd[poolStatus](t, pair.Secondary, "mirror", "pool", "status", pool.Name, "--verbose")
		mine := fmt.Sprint(near.InstanceID())
		if s.Summary.DaemonHealth != "OK" || len(s.Daemons) != 1 || s.Daemons[0].Health != "OK" || !s.Daemons[0].Leader ||
			s.Daemons[0].InstanceID != mine || s.Daemons[0].ClientID != "lab" || len(s.Images) != 1 ||
			s.Images[0].State != "up+replaying" || s.Images[0].Daemon == nil || s.Images[0].Daemon.InstanceID != mine {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})

	// Any watch of the connection keeps its statuses up, so this one goes first.
	if err := watch.Close(ctx); err != nil {
		t.Fatal(err)
	}
	stop()
	done.Wait()
	harness.Eventually(t, 20*time.Second, func() string { return shown("down+replaying", "idle") })

	// The next daemon clears up what the dead one left, and removes only its own.
	again, end := context.WithCancel(ctx)
	defer end()
	next := mirror.NewStatusWriter(mirror.StatusConfig{IO: io})
	done.Go(func() { _ = next.Run(again) })
	harness.Eventually(t, 20*time.Second, func() string {
		if s := rbd[imageStatus](t, pair.Secondary, "mirror", "image", "status", spec); s.State != "down+unknown" {
			return fmt.Sprintf("%+v", s)
		}
		return ""
	})
	next.Set(globalID, cephmirror.StatusReplaying, "next")
	next.Remove("nobody")
	if err := next.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	watch, err = mirror.Watch(ctx, io, heard)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close(context.WithoutCancel(ctx))
	if err := mirror.RemoveImage(ctx, io, id); err != nil {
		t.Fatal(err)
	}
	heard.waitFor(t, id+" disabling", id+" disabled")
	end()
	done.Wait()
}

// TestLiveModesAndNamespaces changes modes with "rbd" and sees them.
func TestLiveModesAndNamespaces(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.ImageMode)
	ctx := t.Context()
	cluster := local(t, pair.Secondary)
	io := open(t, cluster, pool.Name, "")
	list := func(want ...string) {
		t.Helper()
		got, err := mirror.MirroredNamespaces(ctx, cluster, io.Pool().ID)
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
	}
	list("")
	for _, name := range []string{"a", "b"} {
		harness.Run(t, pair.Secondary, "rbd", "namespace", "create", pool.Name+"/"+name)
	}
	list("")
	harness.Run(t, pair.Secondary, "rbd", "mirror", "pool", "enable", pool.Name+"/b", "pool")
	list("", "b")
	inner, err := mirror.ReadPool(ctx, open(t, cluster, pool.Name, "b"))
	if err != nil || inner.Mode != cephmirror.ModePool || inner.MirrorUUID == "" || len(inner.Peers) != 0 || inner.RemoteNamespace != "b" {
		t.Errorf("%+v, %v", inner, err)
	}

	heard := &events{}
	watch, err := mirror.Watch(ctx, open(t, cluster, pool.Name, "b"), heard)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close(context.WithoutCancel(ctx))
	harness.Run(t, pair.Secondary, "rbd", "mirror", "pool", "enable", pool.Name+"/b", "image")
	heard.waitFor(t, "mode image")
	harness.Run(t, pair.Secondary, "rbd", "mirror", "pool", "disable", pool.Name+"/b")
	heard.waitFor(t, "mode disabled")
	list("")
}
