package replayer

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/replay"
	"github.com/rbdwarden/rbdwarden/report"
)

var rewrite = flag.Bool("rewrite", false, "write the golden files anew")

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// failure is a cause as the core makes it from an effect's error.
func failure(in core.State, err error) core.StopCause {
	c := core.New(core.Config{})
	c.Step(core.Start{})
	c.Step(core.Failed{State: in, Class: rados.Classify(err), Err: err})
	return c.Cause()
}

// situations are causes as they occur.
var situations = []struct {
	name string
	account
}{
	{"never started", account{}},
	{"stopped by an operator", account{cause: core.StopCause{Reason: core.StopRequested, Text: "stopped by an operator"}}},
	{"the daemon ends", account{cause: core.StopCause{Reason: core.StopRequested, Text: "stopped: the daemon let go of the image"}}},
	{"primary here", account{cause: core.StopCause{Reason: core.LocalIsPrimary, Text: "local image is primary"}, local: core.Primary}},
	{"being disabled here", account{cause: core.StopCause{Reason: core.LocalDisabling, Text: "mirroring of the local image is being disabled"}}},
	{"demoted there", account{cause: core.StopCause{Reason: core.RemoteNotPrimary, Text: "remote image is not primary"}, remote: core.Orphan}},
	{"demoted on both sites", account{
		cause: core.StopCause{Reason: core.RemoteNotPrimary, Text: "remote image is not primary"}, local: core.Orphan, remote: core.Orphan,
	}},
	{"removed there", account{cause: core.StopCause{Reason: core.RemoteGone, Text: "remote image no longer exists"}}},
	{"never was there", account{cause: core.StopCause{
		Reason: core.RemoteMissing, Text: "the remote site has no such image, and the local image does not follow that site",
	}}},
	{"nowhere", account{cause: core.StopCause{Reason: core.NothingToDo, Text: "mirror image no longer exists"}}},
	{"its parent is not here", account{cause: core.StopCause{
		Reason: core.AwaitingImage, Text: (&WaitError{For: "the parent image rbd/golden@v1", Why: "it is being synced"}).Error(),
	}}},
	{"its parent is not mirrored", account{next: noon, cause: core.StopCause{
		Reason: core.AwaitingOperator,
		Text:   (&WaitError{For: "the parent image rbd/golden@v1", Why: "it is not mirrored: enable mirroring of it on the primary, or flatten this image there"}).Error(),
	}}},
	{"split brain", account{cause: core.StopCause{Reason: core.SplitBrained, Text: "split-brain detected"}, attempts: 7, next: noon}},
	{"split brain, being looked at", account{cause: core.StopCause{Reason: core.SplitBrained, Text: "split-brain detected"}, attempts: 8, trying: true}},
	{"removal interrupted", account{cause: core.StopCause{Reason: core.Removing, Text: "completing the removal of the local image"}}},
	{"resync", account{cause: core.StopCause{Reason: core.ResyncWanted, Text: "resync requested"}}},
	{"disconnected", account{cause: core.StopCause{Reason: core.PeerDisconnected, Text: "disconnected"}}},
	{"registered too late", account{cause: core.StopCause{
		Reason: core.EntriesMissed, Text: "this site was not registered with the remote journal, so entries may be missing here",
	}}},
	{"demoted while replaying", account{cause: core.StopCause{Reason: core.RemoteDemoted, Text: "remote image demoted"}}},
	{"promoted by force", account{cause: core.StopCause{Reason: core.ForcePromoted, Text: "force promoted"}}},
	{"lock lost", account{cause: core.StopCause{
		Reason: core.LockWasLost, Text: "lost exclusive lock", Err: fmt.Errorf("watch on %s: %w", "rbd_header.1", syscall.ENOTCONN),
	}, next: noon.Add(time.Second)}},
	{"no progress", account{cause: core.StopCause{
		Reason: core.NoProgress, Text: "no progress for 5m0s: Apply in REPLAYING",
	}, attempts: 1, next: noon.Add(time.Second)}},
	{"client of another copy", account{cause: core.StopCause{
		Reason: core.WrongPeerImage, Text: `the remote journal's client belongs to local image id "a", not to "b"`,
	}}},
	{"mirrored by snapshots", account{cause: core.StopCause{
		Reason: core.Unsupported, Text: "local image is mirrored by snapshots, not by its journal",
	}}},
	{"remote cluster away", account{cause: failure(core.PrepareRemoteImage, &rados.Error{
		Op: "rbd.mirror_image_get_image_id", Cluster: "north", Pool: "rbd", Object: "rbd_mirroring", Err: syscall.ETIMEDOUT,
	}), attempts: 3, next: noon.Add(4 * time.Second), synced: true}},
	{"remote cluster away, being tried", account{cause: failure(core.PrepareRemoteImage, &rados.Error{
		Op: "rbd.mirror_image_get_image_id", Cluster: "north", Pool: "rbd", Object: "rbd_mirroring", Err: syscall.ETIMEDOUT,
	}), attempts: 3, trying: true}},
	{"no permission", account{cause: failure(core.RegisterClient, fmt.Errorf("register journal client %q: %w", "uuid", &rados.Error{
		Op: "journal.client_register", Cluster: "north", Pool: "rbd", Object: "journal.1", Err: syscall.EPERM,
	})), attempts: 1, next: noon.Add(2 * time.Second)}},
	{"local cluster full", account{cause: failure(core.Replaying, &rados.Error{
		Op: "write", Cluster: "south", Pool: "rbd", Namespace: "ns", Object: "rbd_data.1.0000000000000000", Err: syscall.ENOSPC,
	}), attempts: 1, next: noon.Add(time.Second)}},
	{"fenced", account{cause: failure(core.Replaying, &rados.Error{
		Op: "write", Cluster: "south", Pool: "rbd", Object: "rbd_data.1.0000000000000000", Err: rados.Blocklisted,
	})}},
	{"corrupt journal", account{cause: failure(core.Replaying, &journal.CorruptError{
		Object: "journal_data.2.1.5", Offset: 4711, Err: &encoding.CorruptError{What: "journal.Entry", Reason: "checksum differs"},
	}), attempts: 2, next: noon.Add(4 * time.Second)}},
	{"trimmed", account{cause: failure(core.StartReplay, fmt.Errorf("journal of image 1, client %q: %w", "uuid", journal.ErrTrimmed)), attempts: 1, next: noon}},
	{"name taken", account{cause: failure(core.CreateLocalImage, &image.NameTakenError{Name: "vm", ID: "5"}), attempts: 1, next: noon.Add(2 * time.Second)}},
	{"diverged", account{cause: failure(core.Replaying, &DivergedError{Skipped: replay.Skipped{
		Event: wire.SnapRollback{}, Result: syscall.EIO, At: wire.ObjectPosition{Tag: 3, Entry: 9},
	}}), attempts: 1, next: noon.Add(2 * time.Second)}},
	{"several errors", account{cause: failure(core.CloseLocalImage, errors.Join(syscall.ETIMEDOUT, errors.New("second"))), attempts: 1, next: noon}},
}

// TestDescriptions compares every situation's state and description with
// testdata/descriptions.txt, which documents them; -rewrite writes it anew.
func TestDescriptions(t *testing.T) {
	var out strings.Builder
	described := map[core.StopReason]bool{}
	for _, s := range situations {
		s.image, s.here, s.there, s.since = "rbd/vm", "south", "north", noon.Add(-time.Hour)
		described[s.cause.Reason] = true
		text := s.String()
		fmt.Fprintf(&out, "%s\n  up+%s\n  %s\n\n", s.name, stoppedState(s.cause), text)
		assertDescription(t, s.name, text)
		if s.cause.Text != "" && !strings.HasPrefix(text, firstLine(s.cause.Text)) {
			t.Errorf("%s: upstream's words do not come first: %s", s.name, text)
		}
		if stoppedState(s.cause) == "error" && !strings.Contains(text, "2026-03-01 11:00:00 UTC") {
			t.Errorf("%s: does not say since when: %s", s.name, text)
		}
	}
	for r := core.NeverStarted; !strings.HasPrefix(r.String(), "StopReason("); r++ {
		if !described[r] {
			t.Errorf("no situation has the reason %q: add one, and see what an operator would read", r)
		}
	}
	const golden = "testdata/descriptions.txt"
	if *rewrite {
		if err := os.WriteFile(golden, []byte(out.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("%s (-want +got): %s", golden, diff)
	}
}

// firstLine is the first line of a cause, as a description begins with it.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}

func assertDescription(t *testing.T, name, text string) {
	t.Helper()
	if len(text) > MaxDescription || strings.ContainsAny(text, "\n\r") || !utf8.ValidString(text) || text == "" {
		t.Errorf("%s: not one line of at most %d bytes: %q", name, MaxDescription, text)
	}
}

// However long an error is, the description stays one line that ends with the advice.
func TestLongErrorsLeaveRoomForAdvice(t *testing.T) {
	long := strings.Repeat("gräßlich\n", 1000)
	a := account{
		image: "rbd/vm", here: "south", there: "north", attempts: 1, next: noon,
		cause: failure(core.Replaying, &journal.CorruptError{Object: "o", Err: &encoding.CorruptError{What: "x", Reason: long}}),
	}
	assertDescription(t, "long error", a.String())
	if !strings.Contains(a.String(), "`rbd mirror image resync rbd/vm` on south") {
		t.Error("the advice was cut off:", a)
	}
	a.cause = core.StopCause{Reason: core.LockWasLost, Text: "lost exclusive lock", Err: errors.New(long)}
	assertDescription(t, "long loss", a.String())
}

func TestLagIsNeverFalse(t *testing.T) {
	for _, c := range []struct {
		name    string
		p       core.Progress
		silence time.Duration
		want    float64 // -1: not known
	}{
		{"idle", core.Progress{}, 0, 0},
		{"an entry of ten seconds ago", core.Progress{EntriesBehind: 1, OldestWaiting: noon.Add(-10 * time.Second), WaitingSince: noon.Add(-time.Second)}, 0, 10},
		{"the primary's clock is an hour ahead", core.Progress{EntriesBehind: 1, OldestWaiting: noon.Add(time.Hour), WaitingSince: noon.Add(-3 * time.Second)}, 0, 3},
		{"an entry that was read in the future", core.Progress{EntriesBehind: 1, OldestWaiting: noon.Add(time.Hour), WaitingSince: noon.Add(time.Second)}, 0, 0},
		{"an entry without a time", core.Progress{EntriesBehind: 1, WaitingSince: noon.Add(-3 * time.Second)}, 0, 3},
		{"entries that were not read", core.Progress{EntriesBehind: 5}, 0, -1},
		{"a silent primary", core.Progress{}, 20 * time.Second, -1},
		{"a silent primary and an entry", core.Progress{EntriesBehind: 1, OldestWaiting: noon.Add(-10 * time.Second)}, 20 * time.Second, 10},
	} {
		d, known := lag(c.p, c.silence, noon)
		got := d.Seconds()
		if !known {
			got = -1
		}
		if got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// The rate is right from the first second on, falls when nothing comes, and is a number.
func TestRates(t *testing.T) {
	var r rates
	now := noon
	r.add(now, 50, 5000)
	if e, b := r.perSecond(now); e != 0 || b != 0 {
		t.Errorf("a rate before any time has passed: %v, %v", e, b)
	}
	for range 10 {
		now = now.Add(time.Second)
		r.add(now, 100, 10_000)
	}
	now = now.Add(time.Second)
	if e, b := r.perSecond(now); math.Abs(e-95) > 6 || math.Abs(b-9500) > 600 {
		t.Errorf("after ten seconds of 100 entries: %v, %v", e, b)
	}
	for range 600 {
		now = now.Add(time.Second)
		r.roll(now)
	}
	if e, b := r.perSecond(now); e != 0 || b != 0 {
		t.Errorf("after ten minutes of nothing: %v, %v", e, b)
	}
}

// The keys that rbd-mirror has are those that rbd-mirror has; ours come where they say
// something.
func TestReplayKeys(t *testing.T) {
	a := New(Options{})
	keys := func() map[string]any {
		var m map[string]any
		if err := json.Unmarshal([]byte(a.replayDescription(noon)), &m); err != nil {
			t.Fatal(err)
		}
		return m
	}
	idle := map[string]any{
		"primary_position": map[string]any{}, "non_primary_position": map[string]any{}, "entries_behind_primary": 0.0,
		"bytes_per_second": 0.0, "entries_per_second": 0.0, "lag_seconds": 0.0,
	}
	if diff := cmp.Diff(idle, keys()); diff != "" {
		t.Errorf("a fresh image (-want +got): %s", diff)
	}
	a.own.Add(*cause(strings.Repeat("other ", 1000)), false)
	a.own.Add(*cause(strings.Repeat("long ", 1000) + "\n"), false)
	got := keys()
	if text, _ := got["last_cause"].(string); got["restarts"] != 2.0 || len(text) > maxLastCause || !strings.HasPrefix(text, "2026-03-01 12:00:00 UTC image rbd/vm: transient error: long") {
		t.Errorf("a restarted image: %v", got)
	}
}

func cause(text string) *report.Cause {
	return &report.Cause{What: "image rbd/vm", Why: report.WhyError, Class: "transient", When: noon, Text: text}
}

func TestSyncSaysWhereItStands(t *testing.T) {
	for want, s := range map[string]core.SyncProgressed{
		"NOTIFY_SYNC_REQUEST: waiting for a slot among rbd_mirror_concurrent_image_syncs": {Waiting: true},
		"CREATE_SYNC_POINT":                     {},
		"COPY_IMAGE 99% (1999 of 2000 objects)": {ObjectsDone: 1999, ObjectsTotal: 2000},
	} {
		if got := syncDescription(s); got != want {
			t.Errorf("%+v: %q, want %q", s, got, want)
		}
	}
}
