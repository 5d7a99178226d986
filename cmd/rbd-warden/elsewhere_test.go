package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// fakeSite is what one of several fleets knows of the others.
type fakeSite struct {
	fleets []*fleet
	self   int
	silent map[int]bool           // those that do not answer
	at     map[string]whereabouts // of images, by name
	lost   error                  // why nobody can be asked
}

func (s *fakeSite) find(_ context.Context, t *controlv1.Target) (whereabouts, error) {
	if s.lost != nil {
		return whereabouts{}, s.lost
	}
	w, ok := s.at[t.GetImage()]
	if !ok {
		return w, fmt.Errorf("no such image: %w", syscall.ENOENT)
	}
	return w, nil
}

func (s *fakeSite) spread(ctx context.Context, r *controlv1.CommandRequest, owner string, to audience) (all []spreadReply, err error) {
	if !r.GetHereOnly() {
		return nil, errors.New("a command that the others would spread, too")
	}
	if s.lost != nil {
		return nil, s.lost
	}
	for i, f := range s.fleets {
		if owns := owner == fmt.Sprint("m", i); i == s.self || to == toOwner && !owns || to == toOthers && owns {
			continue
		}
		reply := spreadReply{Host: "north", PID: i}
		if s.silent[i] {
			reply.Error = "connection refused"
		} else {
			reply.Reply, err = marshalReply(f.Do(ctx, r))
		}
		all = append(all, reply)
	}
	return all, err
}

// newSites makes fleets that know of each other; each image is of the fleet of that index.
func newSites(images ...string) (fleets []*fleet, sites []*fakeSite) {
	at := map[string]whereabouts{}
	for i, name := range images {
		fleets = append(fleets, newFleet(ready(report.Image{GlobalID: "g" + name, Name: name})))
		at[name] = whereabouts{GlobalID: "g" + name, Owner: fmt.Sprint("m", i), Host: "north", PID: i}
	}
	for i, f := range fleets {
		s := &fakeSite{fleets: fleets, self: i, silent: map[int]bool{}, at: at}
		f.site = s
		sites = append(sites, s)
	}
	return fleets, sites
}

// A command reaches the image's daemon, whichever daemon it is given to, and every daemon
// notes what is to hold when the image moves to it.
func TestCommandsReachOtherDaemons(t *testing.T) {
	fleets, _ := newSites("a", "b", "c")
	for _, c := range []struct {
		verb controlv1.Verb
		at   int
		want string
	}{
		{controlv1.Verb_VERB_STOP, 0, "rbd/c@0 0 was replaying, stopped north, pid 2"},
		{controlv1.Verb_VERB_STOP, 2, "rbd/c@0 0 is stopped already "},
		{controlv1.Verb_VERB_START, 1, "rbd/c@0 0 was stopped, replaying north, pid 2"},
		{controlv1.Verb_VERB_PAUSE, 0, "rbd/c@0 0 was replaying, paused north, pid 2"},
		{controlv1.Verb_VERB_FLUSH, 1, "rbd/c@0 0 paused, flushed north, pid 2"},
		{controlv1.Verb_VERB_RESTART, 1, "rbd/c@0 0 was paused, replaying north, pid 2"},
		{controlv1.Verb_VERB_STOP, 2, "rbd/c@0 0 was replaying, stopped "},
	} {
		r := fleets[c.at].do(c.verb, "c", 5*time.Second)
		got := texts(r)
		if len(r.Outcomes) == 1 {
			got += " " + r.Outcomes[0].Daemon
		}
		if got != c.want {
			t.Errorf("%v at %d: %s, want %s", c.verb, c.at, got, c.want)
		}
	}
	for i, f := range fleets {
		if wish := f.halts.Of("rbd", "", "gc"); wish.Reason != "stopped by root" || wish.Pause {
			t.Errorf("daemon %d goes by %v", i, f.halts)
		}
		if wish := f.workers[0].images.halts.Of("rbd", "", "gc"); wish.Reason != "stopped by root" {
			t.Errorf("the worker of daemon %d goes by %v", i, wish)
		}
	}
	if got := texts(fleets[0].do(controlv1.Verb_VERB_PAUSE, "c", time.Second)); !strings.HasPrefix(got, "16 the daemon north, pid 2, which runs it, refuses: image rbd/c is stopped") {
		t.Errorf("a pause of what is stopped: %s", got)
	}
	for i, f := range fleets {
		if f.halts.Of("rbd", "", "gc").Pause || f.workers[0].images.halts.Of("rbd", "", "gc").Pause {
			t.Errorf("a pause that was refused is noted by daemon %d: %v", i, f.halts)
		}
	}
	if got := texts(fleets[0].do(controlv1.Verb_VERB_STOP, "x", time.Second)); !strings.HasPrefix(got, "2 no image rbd/x is mirrored by this daemon") {
		t.Errorf("no such image: %s", got)
	}
	// Of all of a pool, a daemon stops what it runs itself.
	if got := texts(fleets[0].do(controlv1.Verb_VERB_STOP, "", time.Second)); got != "rbd/a@0 0 was replaying, stopped" || fleets[1].halts.Of("rbd", "", "gb").Reason != "" {
		t.Errorf("a pool: %s, %v", got, fleets[1].halts)
	}
}

// A command that meets an image between two workers waits for it: also when it comes to this daemon, whose report does
// not have it yet. If it does not come in the time that there is, that is said.
func TestAnImageThatIsOnItsWay(t *testing.T) {
	fleets, _ := newSites("a", "b")
	f := fleets[0]
	worker, asked, comes := f.workers[0], 0, 6
	worker.images = newPretenders(nil)
	told := f.report
	f.report = func(ctx context.Context) report.Daemon {
		if asked++; asked == comes {
			worker.images = newPretenders(nil, report.Image{GlobalID: "ga", Name: "a"})
		}
		d := told(ctx)
		d.Host, d.PID = "north", 0
		return d
	}
	if got := texts(f.do(controlv1.Verb_VERB_START, "a", 30*time.Second)); got != "rbd/a@0 0 is replaying already" {
		t.Error(got)
	}
	worker.images, asked, comes = newPretenders(nil), 0, -1
	if got := texts(f.do(controlv1.Verb_VERB_START, "a", 300*time.Millisecond)); !strings.HasPrefix(got, "rbd/a@0 11 this daemon is to run it, and does not yet; ") {
		t.Error(got)
	}
	if asked < 4 {
		t.Errorf("it was looked for %d times", asked)
	}
}

// An image that moved here while it was stopped has no name yet, and is known by it all the
// same; its command has the time that it takes.
func TestAnImageWithoutItsName(t *testing.T) {
	fleets, sites := newSites("a", "b")
	f := fleets[0]
	f.workers[0].images = newPretenders(nil, report.Image{GlobalID: "gx"})
	sites[0].at["x"] = whereabouts{GlobalID: "gx", Owner: "m0"} // the fleets' reports name no host
	for verb, want := range map[controlv1.Verb]string{
		controlv1.Verb_VERB_STOP: "rbd/x@0 0 was replaying, stopped",
	} {
		if got := texts(f.do(verb, "x", 5*time.Second)); got != want {
			t.Errorf("%v: %s, want %s", verb, got, want)
		}
	}
	if fleets[1].halts.Of("rbd", "", "gx").Reason == "" {
		t.Error("the other daemon has not noted it")
	}
	f.workers[0].images.slow = "gx"
	began := time.Now()
	if got := texts(f.do(controlv1.Verb_VERB_START, "x", time.Second)); !strings.HasPrefix(got, "rbd/x@0 11 was stopped, not replaying yet") || time.Since(began) < 400*time.Millisecond {
		t.Errorf("%s, after %v", got, time.Since(began))
	}
}

// An image whose daemon does not answer is named with it; a bystander that does not is
// named, and keeps nobody from obeying.
func TestDaemonsThatDoNotAnswer(t *testing.T) {
	fleets, sites := newSites("a", "b", "c")
	sites[0].silent[2] = true
	if got, want := texts(fleets[0].do(controlv1.Verb_VERB_STOP, "c", time.Second)),
		"112 image rbd/c is run by the daemon north, pid 2, which cannot be told: connection refused; the stop is noted"; !strings.HasPrefix(got, want) {
		t.Errorf("%s, want %s", got, want)
	}
	if fleets[1].halts.Of("rbd", "", "gc").Reason == "" || fleets[0].halts.Of("rbd", "", "gc").Reason == "" {
		t.Error("the stop is not noted by those that answer")
	}
	for image, want := range map[string]string{
		"b": "rbd/b@0 0 was replaying, stopped (not told, for they do not answer: north, pid 2)",
		"a": "rbd/a@0 0 was replaying, stopped (not told, for they do not answer: north, pid 2)",
	} {
		if got := texts(fleets[0].do(controlv1.Verb_VERB_STOP, image, time.Second)); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	sites[0].at["d"] = whereabouts{GlobalID: "gd"}
	if got := texts(fleets[0].do(controlv1.Verb_VERB_START, "d", time.Second)); !strings.HasPrefix(got, "rbd/d@0 11 no daemon of the site runs it at the moment; it is noted") {
		t.Error(got)
	}
	sites[0].lost = errors.New("no worker is ready")
	if got := texts(fleets[0].do(controlv1.Verb_VERB_START, "b", time.Second)); !strings.HasPrefix(got, "2 no image rbd/b") || !strings.HasSuffix(got, "other daemons cannot be asked about it: no worker is ready") {
		t.Error(got)
	}
	if got := texts(fleets[0].do(controlv1.Verb_VERB_START, "a", time.Second)); got != "rbd/a@0 0 was stopped, replaying" {
		t.Errorf("its own image: %s", got)
	}
}

// The name of a cluster is told from the question for all of a site.
func TestClusterFlag(t *testing.T) {
	for _, c := range []struct {
		args  []string
		name  string
		site  bool
		fails bool
	}{
		{nil, "", false, false},
		{[]string{"--cluster"}, "", true, false},
		{[]string{"--cluster", "--json"}, "", true, false},
		{[]string{"--site", "--cluster", "backup"}, "backup", true, false},
		{[]string{"--cluster", "backup"}, "backup", false, false},
		{[]string{"--cluster=backup"}, "backup", false, false},
		{[]string{"backup"}, "", false, true},
		{[]string{"--cluster=backup", "other"}, "", false, true},
		{[]string{"--cluster", "--trace"}, "", false, true},
	} {
		cmd := newPsCommand()
		if err := cmd.ParseFlags(c.args); err != nil {
			t.Fatal(err)
		}
		var ps psCommand
		ps.sockets.ceph.cluster, _ = cmd.Flags().GetString("cluster")
		ps.site, _ = cmd.Flags().GetBool("site")
		ps.view.trace, _ = cmd.Flags().GetBool("trace")
		err := ps.settleCluster(cmd.Flags().Args())
		if (err != nil) != c.fails || err == nil && (ps.sockets.ceph.cluster != c.name || ps.site != c.site) {
			t.Errorf("%v: %q, %v, %v", c.args, ps.sockets.ceph.cluster, ps.site, err)
		}
	}
}

// What is printed of a site.
func TestPrintCluster(t *testing.T) {
	d := psSample(2)
	c := report.Cluster{
		FSID: "f", Asked: "north, pid 4711", Taken: d.Taken, Frozen: true, Notes: []string{"something"},
		Daemons: []report.ClusterDaemon{
			{Host: "north", PID: 4711, State: report.DaemonAnswers, Report: &d},
			{Host: "east", PID: 7, State: report.DaemonSilent, Text: "does not answer for 2s"},
			{Host: "west", PID: 8, State: report.DaemonDead, Text: "no heartbeat for 2s, fenced", Since: d.Taken.Add(-time.Minute)},
		},
	}
	c.Pools = c.Leaders()
	var out strings.Builder
	printCluster(&out, c, view{})
	for _, want := range []string{
		"site f: 3 daemons, 1 answers; asked north, pid 4711\n", "last known, for RADOS cannot be read\n", "  note: something\n",
		"pool rbd: led by worker 0 of daemon 4711 on north", "daemon 4711 on north: client.rbd-mirror.a",
		"daemon 7 on east: DOES NOT ANSWER: does not answer for 2s\n", "daemon 8 on west: DEAD for 1m0s: no heartbeat for 2s, fenced\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("lacks %q:\n%s", want, out.String())
		}
	}
}
