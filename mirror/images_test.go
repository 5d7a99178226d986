package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// holding answers as a pool with n mirrored images, id000000 and so on.
func holding(n int) *fakeIO {
	io := newFakeIO("p")
	io.answers["mirror_image_list"] = func(in []byte) ([]byte, error) {
		d := encoding.NewDecoder("test", in)
		after, most := d.String(), d.U64()
		var ids []string
		for i := 0; i < n && uint64(len(ids)) < most; i++ {
			if id := fmt.Sprintf("id%06d", i); id > after {
				ids = append(ids, id)
			}
		}
		var e encoding.Encoder
		e.U32(uint32(len(ids)))
		for _, id := range ids {
			e.String(id)
			e.String("global " + id)
		}
		return e.Bytes(), nil
	}
	return io
}

func TestListImagesPages(t *testing.T) {
	for _, n := range []int{0, 1, imagePage - 1, imagePage, imagePage + 1, 3*imagePage + 5} {
		last, count := "", 0
		err := ListImages(context.Background(), holding(n), func(id, global string) bool {
			if id <= last || global != "global "+id {
				t.Fatalf("%s (%s) after %s", id, global, last)
			}
			last = id
			count++
			return true
		})
		if err != nil || count != n {
			t.Errorf("%d of %d images, %v", count, n, err)
		}
	}
	count := 0
	err := ListImages(context.Background(), holding(2000), func(string, string) bool { count++; return count < 5 })
	if err != nil || count != 5 {
		t.Errorf("%d images after a stop at 5, %v", count, err)
	}
	if err := ListImages(context.Background(), newFakeIO("p"), nil); err != nil {
		t.Errorf("a pool without mirroring: %v", err)
	}
}

// story prints the writes and notifications of a test.
func story(t *testing.T, io *fakeIO) string {
	t.Helper()
	var lines []string
	for _, op := range io.taken() {
		for _, s := range op.Steps {
			line := s.Call.Method
			if s.Call.Method == "mirror_image_set" {
				d := encoding.NewDecoder("test", s.Call.In)
				id := d.String()
				r, err := cephmirror.DecodeImage(d.Rest())
				if err != nil {
					t.Fatal(err)
				}
				line = fmt.Sprintf("%s %s %v", line, id, r.State)
			}
			lines = append(lines, line)
		}
	}
	for _, b := range io.notes {
		ev, err := cephmirror.DecodeEvent(b)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, fmt.Sprintf("notify %v", ev.(cephmirror.ImageUpdated).State))
	}
	io.notes = nil
	return strings.Join(lines, "; ")
}

func TestImageLifecycle(t *testing.T) {
	ctx := context.Background()
	io := newFakeIO("p")
	record := cephmirror.Image{Mode: cephmirror.ImageJournal, GlobalID: "g", State: cephmirror.ImageCreating}
	step := func(what string, err error, want string) {
		t.Helper()
		if got := story(t, io); got != want || err != nil {
			t.Errorf("%s: %s, %v; want %s", what, got, err, want)
		}
	}
	step("removing what is not there", RemoveImage(ctx, io, "i"), "")
	step("creating", SetImage(ctx, io, "i", record), "mirror_image_set i creating; notify creating")
	io.answer("mirror_image_get", record.Encode)
	io.answer("mirror_image_get_image_id", func(e *encoding.Encoder) { e.String("i") })
	step("creating again", SetImage(ctx, io, "i", record), "")
	record.State = cephmirror.ImageEnabled
	step("enabling", SetImage(ctx, io, "i", record), "mirror_image_set i enabled; notify enabled")
	io.answer("mirror_image_get", record.Encode)
	if id, got, err := FindImage(ctx, io, "g"); id != "i" || got != record || err != nil {
		t.Errorf("%s, %+v, %v", id, got, err)
	}
	step("removing", RemoveImage(ctx, io, "i"), "mirror_image_set i disabling; mirror_image_remove; notify disabling; notify disabled")
	io.fail = func(*rados.WriteOp) error { return syscall.EEXIST }
	if err := SetImage(ctx, io, "i", cephmirror.Image{GlobalID: "other"}); !errors.Is(err, syscall.EEXIST) || len(io.notes) > 0 {
		t.Errorf("%v, %d notifications", err, len(io.notes))
	}
}

type heard struct{ lines []string }

func (h *heard) ModeUpdated(m cephmirror.Mode) { h.lines = append(h.lines, "mode "+m.String()) }
func (h *heard) ImageUpdated(ev cephmirror.ImageUpdated) {
	h.lines = append(h.lines, fmt.Sprintf("%s %s %v", ev.ImageID, ev.GlobalID, ev.State))
}
func (h *heard) Unreadable(err error) { h.lines = append(h.lines, "unreadable: "+err.Error()) }
func (h *heard) WatchLost(err error)  { h.lines = append(h.lines, "lost: "+err.Error()) }

func TestWatchHearsAll(t *testing.T) {
	io, h := newFakeIO("p"), &heard{}
	if _, err := Watch(context.Background(), io, h); err != nil {
		t.Fatal(err)
	}
	acks := 0
	for _, payload := range [][]byte{
		cephmirror.EncodeEvent(cephmirror.ModeUpdated{Mode: cephmirror.ModePool}),
		cephmirror.EncodeEvent(cephmirror.ImageUpdated{State: cephmirror.ImageDisabled, ImageID: "i", GlobalID: "g"}),
		cephmirror.EncodeEvent(cephmirror.UnknownEvent{Operation: 9}),
		{1, 1},
	} {
		io.watch.handler.Notified(rados.Notification{NotifierID: 5, Payload: payload, Ack: func([]byte) { acks++ }})
	}
	io.watch.handler.WatchLost(syscall.ENOTCONN)
	want := []string{"mode pool", "i g disabled",
		"unreadable: notification on rbd_mirroring from client.5: unknown operation 9",
		"unreadable: notification on rbd_mirroring from client.5: corrupt mirror.Event at offset 2: need 4 bytes, have 0",
		"lost: " + syscall.ENOTCONN.Error()}
	if fmt.Sprint(h.lines) != fmt.Sprint(want) {
		t.Errorf("heard\n%s\nwant\n%s", strings.Join(h.lines, "\n"), strings.Join(want, "\n"))
	}
	if acks != 4 {
		t.Errorf("%d of 4 notifications were acknowledged", acks)
	}
}

// TestServiceStatus compares with what rbd-mirror 16.2.15 reported.
func TestServiceStatus(t *testing.T) {
	one, zero := uint64(1), uint64(0)
	counts := func(n *uint64) ImageCounts { return ImageCounts{Local: n, Remote: n} }
	got := ServiceStatus(map[int64]ServicePool{2: {Name: "rbdh", ImageCounts: counts(&one), InstanceID: 4145, Leader: true,
		Namespaces: map[string]ImageCounts{"ns": counts(&zero)}}})
	want := `{"2":{"name":"rbdh","callouts":{},"image_local_count":1,"image_remote_count":1,"instance_id":"4145","leader":true,` +
		`"namespaces":{"ns":{"image_local_count":0,"image_remote_count":0}}}}`
	if len(got) != 1 || got["json"] != want {
		t.Errorf("%v\nwant json:%s", got, want)
	}
	got = ServiceStatus(map[int64]ServicePool{3: {Name: "p", Callouts: []Callout{{CalloutWarning, "access denied"}}}})
	var pools map[string]struct {
		Callouts map[string]Callout
	}
	if err := json.Unmarshal([]byte(got["json"]), &pools); err != nil || pools["3"].Callouts["1"] != (Callout{CalloutWarning, "access denied"}) {
		t.Errorf("%s, %v", got["json"], err)
	}
}

func TestServiceMetadata(t *testing.T) {
	id, m := ServiceMetadata("rbd-mirror.host1", 4143)
	if id != "4143" || fmt.Sprint(m) != "map[id:host1 instance_id:4143]" {
		t.Error(id, m)
	}
	if _, m := ServiceMetadata("admin", 1); m["id"] != "admin" {
		t.Error(m)
	}
}
