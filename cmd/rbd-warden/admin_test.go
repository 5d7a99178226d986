package main

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/admin"
	"github.com/rbdwarden/rbdwarden/report"
)

// sampleReport is what rbd-mirror 16.2.15 was doing when testdata was recorded.
func sampleReport() report.Daemon {
	peer := report.Peer{UUID: "46d97d7b-18e2-4dad-b403-3fefd46044ca", Site: "site-a", Client: "client.rbd-mirror-peer", Reachable: true}
	pool := func(namespace string, images ...report.Image) report.Pool {
		for i := range images {
			images[i].Pool, images[i].Namespace, images[i].Step, images[i].State = "rbd", namespace, "REPLAYING", "replaying"
		}
		return report.Pool{
			Name: "rbd", ID: 1, Namespace: namespace, Peer: peer, Health: report.HealthOK, Leader: true, InstanceID: "4130",
			RemoteSocket: "/run/ceph/client.rbd-mirror-peer.23296.site-a.94100092065256.asok", Images: images,
		}
	}
	return report.Daemon{Workers: []report.Worker{{
		PID: 1, State: report.WorkerReady, LocalSocket: "/run/ceph/client.rbd-mirror.lab.23296.site-b.94100080334312.asok",
		Syncs: &report.Slots{Limit: 5}, Deletions: &report.Slots{Limit: 1},
		Replayed: report.Replayed{Entries: 4, Bytes: 350, Seconds: 0.986721725},
		Pools: []report.Pool{
			pool("ns1", report.Image{Name: "img3", GlobalID: "7"}),
			pool("", report.Image{Name: "img1", GlobalID: "39eec485"}, report.Image{Name: "img2", GlobalID: "0f12d7c2"}),
			{Name: "no peer", ID: 2},
		},
	}}}
}

func TestMirrorStatusIsUpstreams(t *testing.T) {
	want, err := os.ReadFile("testdata/mirror-status-16.2.15.json")
	if err != nil {
		t.Fatal(err)
	}
	d := sampleReport()
	got := admin.Render(mirrorStatus(poolReplayers(d)), admin.JSONPretty)
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Error("(-want +got)", diff)
	}
	for _, c := range []struct {
		state  string
		change func(w *report.Worker, p *report.Pool)
	}{
		{"stopped (manual)", func(_ *report.Worker, p *report.Pool) { p.Stopped = true }},
		{"error", func(_ *report.Worker, p *report.Pool) { p.Health = report.HealthError }},
		{"error", func(w *report.Worker, _ *report.Pool) { w.PID = 0 }},
		{"stopped", func(w *report.Worker, _ *report.Pool) { w.State = report.WorkerStopping }},
		{"running", func(_ *report.Worker, p *report.Pool) { p.Leader, p.LeaderID = false, "client.77" }},
	} {
		d := sampleReport()
		c.change(&d.Workers[0], &d.Workers[0].Pools[1])
		r := poolReplayers(d)
		v := poolStatus(r[0])
		if len(r) != 1 || v.Member("state").Text() != c.state {
			t.Errorf("%s instead of %s", v.Member("state").Text(), c.state)
		}
		if !r[0].pool().Leader && v.Member("leader_instance_id").Text() != "77" {
			t.Errorf("follows %s", v.Member("leader_instance_id").Text())
		}
	}
}

// A copy that cannot be deleted is in the queue of failed ones, as is one whose deferment has not ended.
func TestDeleterStatusIsUpstreams(t *testing.T) {
	v := deleterStatus([]report.Pool{{
		Images: []report.Image{{LocalID: "a", Step: "REPLAYING"}, {LocalID: "b", Step: removing}},
		Trash: []report.Deletion{
			{ImageID: "c", Running: true, Retries: 1, Errno: 16},
			{ImageID: "d", Retries: 3, Errno: 16, Error: "image d has clones"},
			{ImageID: "e"},
		},
	}})
	want := `{"delete_images_queue":[{"image_id":"b"},{"image_id":"c"}],"failed_deletes_queue":[` +
		`{"image_id":"d","error_code":"(16) Device or resource busy","retries":3,"error":"image d has clones"},` +
		`{"image_id":"e","error_code":"(0) Success","retries":0}]}`
	if got := string(admin.Render(v, admin.JSON)); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}

// Every step of an image has a word of rbd-mirror's.
func TestImageStates(t *testing.T) {
	seen := map[string][]string{}
	for s := core.State(0); !strings.HasPrefix(s.String(), "State("); s++ {
		word := imageState(report.Image{Step: s.String()})
		seen[word] = append(seen[word], s.String())
	}
	if diff := cmp.Diff([]string{"Replaying", "Starting", "Stopped", "Stopping"}, sortedKeys(seen)); diff != "" {
		t.Error(diff)
	}
	for word, step := range map[string]core.State{"Stopped": core.Stopped, "Replaying": core.Replaying, "Starting": core.ImageSync, "Stopping": core.RemoveLocalImage} {
		if !slices.Contains(seen[word], step.String()) {
			t.Errorf("%v is not %s", step, word)
		}
	}
}

func sortedKeys[V any](m map[string]V) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

// The expected texts are those of rbd-mirror 16.2.15.
func TestCounters(t *testing.T) {
	var base perfBase
	find := func(d report.Daemon, name string) logger {
		for _, l := range loggers(d) {
			if l.name == name {
				return base.since(l)
			}
		}
		t.Fatalf("no logger %s", name)
		return logger{}
	}
	render := func(l logger, put func(counter, *admin.Value)) string {
		v := admin.NewObject(l.name)
		for _, c := range l.counters {
			put(c, v)
		}
		return string(admin.Render(v, admin.JSON))
	}
	dump := func(c counter, v *admin.Value) { c.put(v) }
	d := sampleReport()
	if got, want := render(find(d, "rbd_mirror"), dump),
		`{"replay":4,"replay_bytes":350,"replay_latency":{"avgcount":4,"sum":0.986721725,"avgtime":0.246680431}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, want := render(find(d, "rbd_mirror_image_rbd/ns1/img3"), func(c counter, v *admin.Value) { c.putSchema(v) }),
		`{"replay":{"type":10,"metric_type":"counter","value_type":"integer","description":"Replays","nick":"r","priority":5,"units":"none"},`+
			`"replay_bytes":{"type":10,"metric_type":"counter","value_type":"integer","description":"Replayed data","nick":"rb","priority":5,"units":"bytes"},`+
			`"replay_latency":{"type":5,"metric_type":"gauge","value_type":"real-integer-pair","description":"Replay latency","nick":"rl","priority":5,"units":"none"}}`; got != want {
		t.Errorf("%s, want %s", got, want)
	}

	if base.reset("absent", loggers(d)) || !base.reset("rbd_mirror", loggers(d)) {
		t.Error("reset of what is not there, or not of what is")
	}
	d.Workers[0].Replayed.Entries++
	if l := find(d, "rbd_mirror"); l.counters[0].value != 1 || l.counters[1].value != 0 {
		t.Errorf("after a reset: %+v", l)
	}
	d.Workers[0].Replayed = report.Replayed{Entries: 2} // of a new worker
	if l := find(d, "rbd_mirror"); l.counters[0].value != 2 {
		t.Errorf("after a restart: %+v", l)
	}
	if l := find(d, "rbd_warden"); l.counters[0].value != 1 {
		t.Errorf("workers: %+v", l.counters[0])
	}
	var labeled map[string][]struct {
		Labels   map[string]string
		Counters map[string]any
	}
	if err := json.Unmarshal(admin.Render(labeledCounters(d, dump), admin.JSON), &labeled); err != nil {
		t.Fatal(err)
	}
	if n := len(labeled["rbd_mirror_journal_image"]); n != 3 || labeled["rbd_mirror_journal_image"][0].Labels["namespace"] != "ns1" {
		t.Errorf("%+v", labeled)
	}
}

// The admin socket belongs to the daemon: it outlives workers, and what was set or stopped
// reaches the next one.
func TestAdminSocketOutlivesWorkers(t *testing.T) {
	p := newPlace(t, "admin socket = $run_dir/asok\nadmin socket mode = 0700\n")
	stale := filepath.Join(p.dir, "asok")
	if err := syscall.Mknod(stale, syscall.S_IFSOCK|0o600, 0); err != nil {
		t.Fatal(err)
	}
	cmd, _ := p.foreground("-d", "--id", "rbd-mirror.a")
	p.ps("ready", isReady)
	if info, err := os.Stat(stale); err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("socket: %v, %v", info, err)
	}
	ask := func(prefix string, args map[string]any) (map[string]any, error) {
		b, err := admin.Ask(t.Context(), stale, prefix, args)
		var v map[string]any
		if err == nil && len(b) > 0 {
			err = json.Unmarshal(b, &v)
		}
		return v, err
	}
	must := func(prefix string, args map[string]any) map[string]any {
		t.Helper()
		v, err := ask(prefix, args)
		if err != nil {
			t.Fatalf("%s: %v", prefix, err)
		}
		return v
	}
	if help := must("help", nil); help["rbd mirror stop rbd/vm-1"] != "stop rbd mirror rbd/vm-1" {
		t.Errorf("help %v", help)
	}
	must("rbd mirror stop rbd/vm-1", nil)
	must("rbd mirror stop", nil)
	must("rbd mirror start rbd site-a", nil)
	if said := must("config set", map[string]any{"var": "rbd_warden_osd_timeout", "val": []string{"17"}}); !strings.Contains(said["success"].(string), "rbd_warden_osd_timeout = '17' (") {
		t.Errorf("%v", said)
	}
	must("config set", map[string]any{"var": "debug_rbd_mirror", "val": "10/1"})
	for _, c := range []struct {
		name, value string
		errno       syscall.Errno
	}{
		{"rbd_warden_osd_timeout", "-1", syscall.EINVAL}, {"pid_file", "/x", syscall.EPERM}, {"rbd_warden_workers", "2", syscall.EPERM}, {"debug_rbd_mirror", "x", syscall.EINVAL},
	} {
		if v, err := ask("config set", map[string]any{"var": c.name, "val": c.value}); !errors.Is(err, c.errno) {
			t.Errorf("set %s to %s: %v, %v", c.name, c.value, v, err)
		}
	}
	must("injectargs", map[string]any{"injected_args": []string{"--rbd-warden-mon-timeout=18 --rbd_warden_connect_timeout", "19"}})
	must("log reopen", nil)

	_, w := p.ps("ready", isReady)
	if err := syscall.Kill(w.PID, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	must("rbd mirror status", nil) // with or without a worker
	p.ps("ready again", func(_ report.Daemon, w report.Worker) bool {
		return w.State == report.WorkerReady && w.Restarts == 1 && slices.Equal(w.Notes, []string{"halts [*: stopped rbd/*: mirrored]", "osd 17s mon 18s connect 19s", "level 10"})
	})
	if v := must("config get", map[string]any{"var": "rbd_warden_osd_timeout"}); v["rbd_warden_osd_timeout"] != "17" {
		t.Errorf("%v", v)
	}
	must("config unset", map[string]any{"var": "rbd_warden_osd_timeout"})
	if v := must("config show", nil); v["rbd_warden_osd_timeout"] != "30" || v["debug_rbd_mirror"] != "10/10" || v["name"] != "client.rbd-mirror.a" {
		t.Errorf("%v", v)
	}
	if diff := must("config diff", nil)["diff"].(map[string]any); diff["rbd_warden_mon_timeout"] == nil || diff["rbd_warden_osd_timeout"] != nil {
		t.Errorf("%v", diff)
	}
	if _, err := ask("config get", map[string]any{"var": "absent"}); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("%v", err)
	}

	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(stale); errors.Is(err, os.ErrNotExist) {
			break
		} else if time.Now().After(deadline) {
			t.Fatal("the socket is left behind")
		}
	}
}
