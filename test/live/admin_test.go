//go:build live

package live

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// adminStatus is "rbd mirror status", as far as the tests look at it.
type adminStatus struct {
	Pools []struct {
		Pool   string       `json:"pool"`
		State  string       `json:"state"`
		Leader bool         `json:"leader"`
		Images []adminImage `json:"image_replayers"`
	} `json:"pool_replayers"`
}

type adminImage struct {
	Name  string `json:"name"`
	State string `json:"state"`
}

// adminState is the state of an image, "" if the admin socket does not know it.
func adminState(t *testing.T, d *harness.Daemon, i *harness.Image) string {
	t.Helper()
	var s adminStatus
	d.AdminJSON(t, &s, "rbd mirror status")
	for _, p := range s.Pools {
		for _, image := range p.Images {
			if image.Name == i.Spec() {
				return image.State
			}
		}
	}
	return ""
}

// keys are the paths of all keys of an answer: the elements of an array count as one.
func keys(v any, path string, into map[string]bool) {
	switch v := v.(type) {
	case map[string]any:
		for k, m := range v {
			into[path+"/"+k] = true
			keys(m, path+"/"+k, into)
		}
	case []any:
		for _, m := range v {
			keys(m, path+"/*", into)
		}
	}
}

// upstreamStatus are the keys of "rbd mirror status" of rbd-mirror 16.2.15.
const upstreamStatus = `{"pool_replayers":[{"peer":"","pool":"","instance_id":"","state":"","leader_instance_id":"","leader":true,"instances":[""],
"local_cluster_admin_socket":"","remote_cluster_admin_socket":"",
"sync_throttler":{"max_parallel_requests":5,"running_requests":0,"waiting_requests":0},
"deletion_throttler":{"max_parallel_requests":1,"running_requests":0,"waiting_requests":0},
"image_replayers":[{"name":"","state":""}],
"image_deleter":{"image_deleter_status":{"delete_images_queue":[],"failed_deletes_queue":[]}},"namespaces":[]}]}`

// upstreamHelp are commands that rbd-mirror 16.2.15 has, whatever it mirrors.
var upstreamHelp = strings.Split("config diff,config diff get,config get,config help,config set,config show,config unset,dump_mempools,"+
	"get_command_descriptions,git_version,help,injectargs,log dump,log flush,log reopen,objecter_requests,perf dump,perf histogram dump,"+
	"perf histogram schema,perf reset,perf schema,rbd mirror flush,rbd mirror leader release,rbd mirror restart,rbd mirror start,"+
	"rbd mirror status,rbd mirror stop,version", ",")

// TestAdminSocketMirrorCommands stops, starts, restarts and flushes images and pools as scripts for rbd-mirror do.
func TestAdminSocketMirrorCommands(t *testing.T) {
	pair := harness.SharedPair(t)
	pool, c := harness.NewPool(t, pair, lab.PoolMode), pair.Secondary
	one, other := pool.Create(t, "one", harness.ImageOptions{SizeMiB: 8}), pool.Create(t, "other", harness.ImageOptions{SizeMiB: 8})
	d := harness.StartDaemon(t, c, harness.Ours(t))
	one.WaitReplayed(t)
	other.WaitReplayed(t)

	// What can be asked, and its shape.
	var help map[string]string
	d.AdminJSON(t, &help, "help")
	site := pair.Primary.Name()
	want := slices.Clone(upstreamHelp)
	for _, verb := range []string{"status", "start", "stop", "restart", "flush"} {
		want = append(want, "rbd mirror "+verb+" "+pool.Name+" "+site, "rbd mirror "+verb+" "+one.Spec(), "rbd mirror "+verb+" "+other.Spec())
	}
	want = append(want, "rbd mirror leader release "+pool.Name+" "+site, "rbd mirror deletion status "+pool.Name)
	for _, command := range want {
		if help[command] == "" {
			t.Errorf("help lacks %q", command)
		}
	}
	var golden, status any
	if err := json.Unmarshal([]byte(upstreamStatus), &golden); err != nil {
		t.Fatal(err)
	}
	d.AdminJSON(t, &status, "rbd mirror status")
	wantKeys, haveKeys := map[string]bool{}, map[string]bool{}
	keys(golden, "", wantKeys)
	keys(status, "", haveKeys)
	for k := range wantKeys {
		if !haveKeys[k] {
			t.Errorf("the status lacks the key %s", k)
		}
	}
	out, code := d.Admin(t, c, "--format", "xml-pretty", "rbd", "mirror", "status", one.Spec())
	if code != 0 || out != "<image_replayer>\n <name>"+one.Spec()+"</name>\n <state>Replaying</state>\n</image_replayer>\n\n" {
		t.Errorf("as XML: %d, %q", code, out)
	}
	out, _ = d.Admin(t, c, "--format", "xml", "rbd", "mirror", "status")
	for x := xml.NewDecoder(strings.NewReader(out)); ; {
		if _, err := x.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("%v in %s", err, out)
		}
	}
	for _, words := range [][]string{{"rbd", "mirror", "status", pool.Name + "/absent"}, {"rbd", "mirror", "stop", "absent", site}, {"nonsense"}} {
		if out, code := d.Admin(t, c, words...); code != 22 {
			t.Errorf("%v: status %d, %q", words, code, out)
		}
	}

	// One image stopped: it stays so, the other goes on.
	if out, code := d.Admin(t, c, "rbd", "mirror", "stop", one.Spec()); code != 0 || strings.TrimSpace(out) != "" {
		t.Errorf("stop: status %d, %q", code, out)
	}
	one.WaitState(t, "up+stopped", "stopped")
	at := one.JournalOn(t, pair.Primary).Mirror()
	one.Bench(t, "rand", "4K", "64K")
	other.Bench(t, "rand", "4K", "64K")
	other.WaitReplayed(t)
	if state := adminState(t, d, one); state != "Stopped" {
		t.Errorf("a stopped image is %q", state)
	}
	if now := one.JournalOn(t, pair.Primary).Mirror(); now != at {
		t.Errorf("a stopped image was replayed from %v to %v", at, now)
	}
	d.AdminDo(t, "rbd mirror stop "+one.Spec()) // again: nothing
	d.AdminDo(t, "rbd mirror flush "+one.Spec())
	d.AdminDo(t, "rbd mirror start "+one.Spec())
	one.WaitReplayed(t)
	one.AssertReplica(t)

	// The pool stopped: also what is new.
	d.AdminDo(t, "rbd mirror stop "+pool.Name+" "+site)
	one.WaitState(t, "up+stopped", "stopped")
	other.WaitState(t, "up+stopped", "stopped")
	late := pool.Create(t, "late", harness.ImageOptions{SizeMiB: 8})
	harness.Eventually(t, harness.Patience, func() string {
		var s adminStatus
		d.AdminJSON(t, &s, "rbd mirror status")
		for _, p := range s.Pools {
			if p.Pool == pool.Name && p.State == "stopped (manual)" && len(p.Images) == 3 {
				for _, i := range p.Images {
					if i.State != "Stopped" {
						return fmt.Sprintf("%+v", s)
					}
				}
				return ""
			}
		}
		return fmt.Sprintf("%+v", s)
	})
	d.AdminDo(t, "rbd mirror start "+pool.Name+" "+site)
	for _, image := range []*harness.Image{one, other, late} {
		image.WaitReplayed(t)
		image.AssertReplica(t)
	}
	d.AdminDo(t, "rbd mirror stop")
	late.WaitState(t, "up+stopped", "stopped")
	d.AdminDo(t, "rbd mirror restart")
	late.WaitReplayed(t)

	// A flush is over when what was read is committed.
	late.Bench(t, "rand", "4K", "64K")
	target := late.JournalOn(t, pair.Primary).Master()
	harness.Eventually(t, harness.Patience, func() string {
		d.AdminDo(t, "rbd mirror flush")
		if now := late.JournalOn(t, pair.Primary).Mirror(); now.Before(target) {
			return fmt.Sprintf("after a flush %v is committed of %v", now, target)
		}
		return ""
	})

	d.Stop(t, stopTime)
	if _, err := os.Stat(d.Socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the admin socket is left: %v", err)
	}
}

// TestAdminSocketOfTheProcess looks at counters and options, and treats the socket badly.
func TestAdminSocketOfTheProcess(t *testing.T) {
	pair := harness.SharedPair(t)
	pool, c := harness.NewPool(t, pair, lab.PoolMode), pair.Secondary
	image := pool.Create(t, "image", harness.ImageOptions{SizeMiB: 8})
	// A dead process's socket in our place.
	d := harness.StartDaemon(t, c, harness.Ours(t))
	image.WaitReplayed(t)
	d.Kill()
	d = harness.StartDaemon(t, c, harness.Ours(t), "--admin-socket", d.Socket, "--rbd-mirror-leader-heartbeat-interval", "1").At(d.Socket)
	image.WaitReplayed(t)

	// Counters count.
	type replayed struct {
		Replay, Bytes uint64
		Latency       struct {
			Count uint64  `json:"avgcount"`
			Sum   float64 `json:"sum"`
		} `json:"replay_latency"`
	}
	counters := func() (total, one replayed) {
		var dump map[string]json.RawMessage
		harness.Eventually(t, harness.Patience, func() string {
			d.AdminJSON(t, &dump, "perf dump")
			if dump["rbd_mirror_image_"+image.Spec()] == nil {
				return "no counters of the image" // upstream's has them while it replays
			}
			return ""
		})
		for name, into := range map[string]*replayed{"rbd_mirror": &total, "rbd_mirror_image_" + image.Spec(): &one} {
			var raw struct {
				replayed
				Replay uint64 `json:"replay"`
				Bytes  uint64 `json:"replay_bytes"`
			}
			if err := json.Unmarshal(dump[name], &raw); err != nil {
				t.Fatalf("counters of %s: %v in %s", name, err, dump[name])
			}
			*into = raw.replayed
			into.Replay, into.Bytes = raw.Replay, raw.Bytes
		}
		if _, ok := dump["objecter"]; !ok {
			t.Error("no counters of librados")
		}
		return total, one
	}
	_, before := counters()
	image.Bench(t, "rand", "4K", "256K")
	image.WaitReplayed(t)
	total, after := counters()
	if n, bytes := after.Replay-before.Replay, after.Bytes-before.Bytes; n < 64 || bytes < 256<<10 || bytes > 4*256<<10 {
		t.Errorf("64 writes of 4 KiB: %d entries, %d bytes", n, bytes)
	}
	if after.Latency.Count < 64 || after.Latency.Sum <= 0 || total.Replay < after.Replay {
		t.Errorf("in all %+v, the image %+v", total, after)
	}
	ceph := func(into any, words ...string) {
		t.Helper()
		out, code := d.Admin(t, c, words...)
		if err := json.Unmarshal([]byte(out), into); code != 0 || err != nil {
			t.Fatalf("%v: %d, %v, %q", words, code, err, out)
		}
	}
	var said map[string]string
	ceph(&said, "perf", "reset", "all")
	if total, one := counters(); total.Replay != 0 || one.Bytes != 0 || said["success"] == "" {
		t.Errorf("after a reset (%v): %+v, %+v", said, total, one)
	}

	// Options.
	var value map[string]string
	ceph(&value, "config", "get", "rbd_mirror_leader_heartbeat_interval")
	if value["rbd_mirror_leader_heartbeat_interval"] != "1" {
		t.Errorf("%v", value)
	}
	var all map[string]any
	d.AdminJSON(t, &all, "config show")
	if all["admin_socket"] != d.Socket || all["name"] != lab.DaemonUser || len(all) < 1500 {
		t.Errorf("config show: %v as %v, %d options", all["admin_socket"], all["name"], len(all))
	}
	ceph(&value, "config", "set", "rbd_mirror_concurrent_image_syncs", "2")
	var status struct {
		Pools []struct {
			Throttler struct {
				Limit int `json:"max_parallel_requests"`
			} `json:"sync_throttler"`
		} `json:"pool_replayers"`
	}
	d.AdminJSON(t, &status, "rbd mirror status")
	if !harness.TestsUpstream() && status.Pools[0].Throttler.Limit != 2 {
		t.Errorf("set a limit: %v, then %+v", value, status)
	}
	for words, errno := range map[string]string{
		"config set absent 1": "(2)", "config set rbd_mirror_concurrent_image_syncs x": "(22)", "config get absent": "(2)", "config set pid_file /x": "(1)",
	} {
		if out, _ := d.Admin(t, c, strings.Fields(words)...); !strings.HasPrefix(out, "ERROR: "+errno+" ") {
			t.Errorf("%s: %q", words, out)
		}
	}

	// A released leadership comes back.
	d.AdminDo(t, "rbd mirror leader release "+pool.Name+" "+pair.Primary.Name())
	image.Bench(t, "rand", "4K", "64K")
	image.WaitReplayed(t)

	// Clients that do not behave.
	for _, garbage := range []string{"", "garbage", "{\"prefix\":", "\x00\x00", strings.Repeat("x", 1<<20)} {
		conn, err := net.Dial("unix", d.Socket)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, _ = conn.Write([]byte(garbage)) // it may be cut off
		if harness.TestsUpstream() {
			conn.Close() // it serves one client at a time
		}
	}
	if answer, err := lab.Admin(t.Context(), d.Socket, map[string]any{"prefix": "absent"}); err != nil ||
		string(answer) != "ERROR: (22) Invalid argument\nunknown command prefix absent\n" {
		t.Errorf("%q, %v", answer, err)
	}
	if info, err := os.Stat(d.Socket); err != nil || info.Mode().Perm()&0o022 != 0 {
		t.Errorf("%v, %v", info, err)
	}
	if !harness.TestsUpstream() { // which needs as many seconds as the one that was killed had left
		d.KillWorkers()
		harness.Eventually(t, time.Minute, func() string {
			if out, code := d.Admin(t, c, "rbd", "mirror", "status"); code != 0 {
				return "without a worker: " + out
			}
			return ""
		})
	}
	d.Stop(t, stopTime)
}
