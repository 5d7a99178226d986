package journal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

func TestCreate(t *testing.T) {
	io, j := newFakeJournal(t, 4)
	m := j.Metadata()
	if m.Order != 12 || m.SplayWidth != 4 || m.PoolID != -1 || m.NextTag != 1 {
		t.Errorf("%+v", m)
	}
	c, ok := m.Client(wire.MasterClientID)
	if !ok {
		t.Fatal("the image is not a client")
	}
	if meta, err := wire.DecodeClientData(c.Data); err != nil || meta != (wire.ImageClientMeta{TagClass: 0}) {
		t.Errorf("%+v, %v", meta, err)
	}
	err := Create(t.Context(), io, testImage, CreateOptions{Order: 12, SplayWidth: 4, Pool: -1})
	if !errors.Is(err, syscall.EEXIST) || io.header == nil {
		t.Errorf("second creation: %v", err)
	}
	for _, o := range []CreateOptions{{Order: 11, SplayWidth: 1}, {Order: 27, SplayWidth: 1}, {Order: 12}} {
		if err := Create(t.Context(), newFakeIO(), testImage, o); !errors.Is(err, syscall.EDOM) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestCreateIsUndoneWhenAStepFails(t *testing.T) {
	io := newFakeIO()
	io.failWrite = func(method string) error {
		if method == "client_register" {
			return syscall.ENOSPC
		}
		return nil
	}
	err := Create(t.Context(), io, testImage, CreateOptions{Order: 12, SplayWidth: 1, Pool: -1})
	if !errors.Is(err, syscall.ENOSPC) || io.header != nil {
		t.Errorf("%v, header %+v", err, io.header)
	}
}

func TestRemove(t *testing.T) {
	io, _ := newFakeJournal(t, 2)
	io.change(func(h *fakeHeader) { h.minimum, h.active = 1, 3 })
	for _, n := range []wire.ObjectNumber{2, 3, 5, 7} {
		io.put(n, wire.Entry{}, false)
	}
	for range 2 { // again is no error
		if err := Remove(t.Context(), io, testImage); err != nil {
			t.Fatal(err)
		}
	}
	if io.header != nil || len(io.objects) != 0 {
		t.Errorf("left: %v", io.objects)
	}
	if _, err := Open(t.Context(), io, testImage); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("open: %v", err)
	}
}

func TestAllocateTagTriesAgain(t *testing.T) {
	io, j := newFakeJournal(t, 2)
	races := 2
	io.failWrite = func(method string) error {
		if method == "tag_create" && races > 0 {
			races--
			io.header.tags = append(io.header.tags, wire.Tag{TID: wire.TagTID(len(io.header.tags))}) // another writer was faster
			return syscall.ESTALE
		}
		return nil
	}
	want := wire.TagData{MirrorUUID: "remote", Predecessor: wire.TagPredecessor{CommitValid: true, Tag: 1, Entry: 2}}
	tag, err := j.AllocateTag(t.Context(), 0, want)
	if err != nil || tag.TID != 3 {
		t.Fatalf("%+v, %v", tag, err)
	}
	if got, err := wire.DecodeTagData(tag.Data); err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	j.notifies.Wait()
	if io.notified != 1 {
		t.Errorf("%d notifications", io.notified)
	}
}

func TestManyChangesAreToldByFewNotifications(t *testing.T) {
	io, j := newFakeJournal(t, 2)
	block := make(chan struct{})
	io.onNotify = func() { <-block }
	for range 50 {
		if err := j.Commit(t.Context(), "", nil); err != nil {
			t.Fatal(err)
		}
	}
	close(block)
	j.notifies.Wait()
	if io.notified < 1 || io.notified > 2 {
		t.Errorf("%d notifications", io.notified)
	}
	before := io.notified
	if err := j.Commit(t.Context(), "", nil); err != nil {
		t.Fatal(err)
	}
	j.notifies.Wait()
	if io.notified != before+1 {
		t.Errorf("a later change was not told: %d notifications", io.notified)
	}
}

func TestClientsOfManyPages(t *testing.T) {
	_, j := newFakeJournal(t, 2)
	for i := range 600 {
		if err := j.Register(t.Context(), fmt.Sprintf("peer%04d", i), wire.CLIClientMeta{}); err != nil {
			t.Fatal(err)
		}
	}
	m, err := j.Refresh(t.Context())
	if err != nil || len(m.Clients) != 601 {
		t.Fatalf("%d clients, %v", len(m.Clients), err)
	}
	if c, ok := m.Client("peer0599"); !ok || c.ID != "peer0599" {
		t.Errorf("%+v", c)
	}
}

func TestClientCalls(t *testing.T) {
	_, j := newFakeJournal(t, 2)
	ctx := t.Context()
	position := wire.ObjectSetPosition{{Object: 1, Tag: 2, Entry: 3}}
	for _, err := range []error{
		j.Register(ctx, "peer", wire.MirrorPeerClientMeta{ImageID: "a"}),
		j.UpdateClient(ctx, "peer", wire.MirrorPeerClientMeta{ImageID: "b"}),
		j.SetClientState(ctx, "peer", wire.Disconnected),
		j.Commit(ctx, "peer", position),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	c, err := j.Client(ctx, "peer")
	want := wire.Client{ID: "peer", Data: wire.EncodeClientData(wire.MirrorPeerClientMeta{ImageID: "b"}), State: wire.Disconnected, CommitPosition: position}
	if d := cmp.Diff(want, c); d != "" || err != nil {
		t.Error(d, err)
	}
	if err := j.Unregister(ctx, "peer"); err != nil {
		t.Fatal(err)
	}
	if _, err := j.Client(ctx, "peer"); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
	if err := j.Commit(ctx, "peer", position); !errors.Is(err, syscall.ENOENT) {
		t.Error(err)
	}
}

func TestTrim(t *testing.T) {
	pos := func(objects ...wire.ObjectNumber) (s wire.ObjectSetPosition) {
		for _, n := range objects {
			s = append(s, wire.ObjectPosition{Object: n})
		}
		return s
	}
	for _, c := range []struct {
		name    string
		clients []wire.Client
		limit   wire.ObjectSet
		heldBy  string
	}{
		{"all beyond", []wire.Client{{CommitPosition: pos(9, 8)}, {ID: "a", CommitPosition: pos(8, 9)}}, 4, ""},
		{"one behind", []wire.Client{{CommitPosition: pos(9, 8)}, {ID: "a", CommitPosition: pos(6, 7)}}, 3, "a"},
		{"an older position counts", []wire.Client{{CommitPosition: pos(9, 8)}, {ID: "a", CommitPosition: pos(8, 5)}}, 2, "a"},
		{"nothing committed", []wire.Client{{CommitPosition: pos(9, 8)}, {ID: "a"}}, 1, "a"},
		{"disconnected", []wire.Client{{CommitPosition: pos(9, 8)}, {ID: "a", State: wire.Disconnected}}, 4, ""},
		{"beyond the active set", []wire.Client{{CommitPosition: pos(99)}}, 5, ""},
		{"behind the minimum set", []wire.Client{{CommitPosition: pos(0)}}, 1, ""},
		{"no clients", nil, 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			io, j := newFakeJournal(t, 2)
			for n := wire.ObjectNumber(2); n < 12; n++ {
				if n != 4 { // not every object need exist
					io.put(n, wire.Entry{}, false)
				}
			}
			io.change(func(h *fakeHeader) {
				h.minimum, h.active = 1, 5
				h.clients = map[string]*wire.Client{}
				for _, cl := range c.clients {
					h.clients[cl.ID] = &cl
				}
			})
			removed, err := j.Trim(t.Context())
			if err != nil || removed != int(c.limit)-1 || io.header.minimum != c.limit {
				t.Fatalf("removed %d, minimum set %d, %v", removed, io.header.minimum, err)
			}
			for n := wire.ObjectNumber(2); n < 12; n++ {
				_, there := io.objects[wire.DataObject(7, testImage, n)]
				if want := n.Set(2) >= c.limit && n != 4; there != want {
					t.Errorf("object %d is there: %v", n, there)
				}
			}
			if len(c.clients) > 0 {
				if limit, heldBy := TrimLimit(j.Metadata()); limit != c.limit || heldBy != c.heldBy {
					t.Errorf("limit %d held by %q", limit, heldBy)
				}
			}
		})
	}
}

func TestPositionsKeepAnOlderTagsPlaces(t *testing.T) {
	old := wire.ObjectSetPosition{{Object: 5, Tag: 1, Entry: 9}, {Object: 4, Tag: 1, Entry: 8}}
	p := NewPositions(2, old)
	p.Delivered(wire.ObjectPosition{Object: 4, Tag: 2, Entry: 0})
	if p.Safe(1, 99) || p.Pending() != 1 {
		t.Fatal("moved by what was committed before")
	}
	if !p.Safe(2, 0) {
		t.Fatal("not moved")
	}
	want := wire.ObjectSetPosition{{Object: 4, Tag: 2, Entry: 0}, {Object: 5, Tag: 1, Entry: 9}}
	if d := cmp.Diff(want, p.Position()); d != "" {
		t.Error(d)
	}
	defer func() {
		if recover() == nil {
			t.Error("an entry was delivered twice, unnoticed")
		}
	}()
	p.Delivered(wire.ObjectPosition{Object: 4, Tag: 2, Entry: 0})
}

func TestDumpGoesOnBehindDamage(t *testing.T) {
	io, _ := newFakeJournal(t, 1)
	entry := func(tid wire.EntryTID) []byte {
		return wire.Marshal(wire.Entry{TID: tid, Payload: wire.Marshal(wire.EventEntry{Event: wire.Resize{Op: 1, Size: uint64(tid)}})})
	}
	size := len(entry(0))
	damaged := entry(1)
	damaged[40] ^= 1
	length := entry(3)
	length[26] = 1 // an entry that seems to go on for ever
	notEvent := wire.Marshal(wire.Entry{TID: 5, Payload: []byte{5, 1, 0}})
	io.objects["journal_data.7.img.0"] = bytes.Join([][]byte{entry(0), damaged, entry(2), length, entry(4), notEvent, entry(6)[:30]}, nil)
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		if err := Dump(t.Context(), io, testImage, &out, asJSON); err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for line := range strings.Lines(out.String()) {
			kind, _, _ := strings.Cut(line, " ")
			if asJSON {
				var v map[string]any
				if err := json.Unmarshal([]byte(line), &v); err != nil {
					t.Fatalf("%s: %v", line, err)
				}
				kind = fmt.Sprint(v["kind"])
				if kind == "corrupt" && v["from"] == float64(size) && v["to"] != float64(2*size) {
					t.Error(line)
				}
			}
			kinds = append(kinds, kind)
		}
		want := "[journal client tag object entry corrupt entry corrupt entry entry incomplete]"
		if fmt.Sprint(kinds) != want {
			t.Errorf("kinds %v\nwant %v\n%s", kinds, want, out.String())
		}
	}
}

func TestOpenRefusesAHeaderThatIsNone(t *testing.T) {
	io, _ := newFakeJournal(t, 2)
	for _, change := range []func(h *fakeHeader){
		func(h *fakeHeader) { h.width = 0 },
		func(h *fakeHeader) { h.width, h.order = 2, 60 },
	} {
		io.change(change)
		_, err := Open(t.Context(), io, testImage)
		var e *rados.Error
		if !errors.As(err, &e) || e.Object != "journal.img" {
			t.Errorf("%v", err)
		}
	}
}

// otherPool is a cluster of which only OpenID is used.
type otherPool struct {
	rados.Cluster
	io        *fakeIO
	id        int64
	namespace string
}

func (c *otherPool) OpenID(_ context.Context, id int64, namespace string) (rados.IOContext, error) {
	if id != c.id || namespace != c.namespace {
		return nil, syscall.ENOENT
	}
	return c.io, nil
}

func TestObjectsInAnotherPool(t *testing.T) {
	io, data := newFakeIO(), newFakeIO()
	io.namespace = "ns"
	io.cluster = &otherPool{io: data, id: 9, namespace: ""}
	if err := Create(t.Context(), io, testImage, CreateOptions{Order: 12, SplayWidth: 1, Pool: 9}); err != nil {
		t.Fatal(err)
	}
	data.put(0, wire.Entry{}, false)
	var out bytes.Buffer
	if err := Dump(t.Context(), io, testImage, &out, true); err != nil || !strings.Contains(out.String(), `"kind":"entry"`) {
		t.Errorf("%v: %s", err, out.String())
	}
	if err := Remove(t.Context(), io, testImage); err != nil || len(data.objects) != 0 || io.header != nil {
		t.Errorf("%v: left %v", err, data.objects)
	}
}

func TestImageTagsOfManyPages(t *testing.T) {
	io, j := newFakeJournal(t, 2)
	for i := range 600 {
		if _, err := j.AllocateTag(t.Context(), 0, wire.TagData{MirrorUUID: fmt.Sprint(i + 1)}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := j.AllocateTag(t.Context(), wire.NewTagClass, wire.TagData{}); err != nil {
		t.Fatal(err) // of somebody else's class
	}
	tags, err := j.ImageTags(t.Context(), "", 0)
	if err != nil || len(tags) != 601 {
		t.Fatalf("%d tags, %v", len(tags), err)
	}
	if last := tags[600]; last.TID != 600 || last.MirrorUUID != "600" {
		t.Errorf("%+v", last)
	}
	io.change(func(h *fakeHeader) { h.tags[5].Data = h.tags[5].Data[:3] })
	var e *rados.Error
	if _, err := j.ImageTags(t.Context(), "", 0); !errors.As(err, &e) || !strings.Contains(e.Op, "tag 5") {
		t.Errorf("%v", err)
	}
	io.change(func(h *fakeHeader) { h.clients[""].Data = wire.EncodeClientData(wire.CLIClientMeta{}) })
	if _, err := j.ImageMeta(t.Context()); err == nil {
		t.Error("a CLI client was taken for the image")
	}
}

func TestAppendFirst(t *testing.T) {
	io, j := newFakeJournal(t, 2)
	full := bytes.Repeat([]byte{0}, 4096)
	io.objects["journal_data.7.img.0"], io.objects["journal_data.7.img.2"] = full, full
	at, err := j.AppendFirst(t.Context(), 1, wire.DemotePromote{}, time.Unix(1, 0))
	if err != nil || at != (wire.ObjectPosition{Object: 4, Tag: 1}) || io.header.active != 2 {
		t.Fatalf("%v, %v, active set %d", at, err, io.header.active)
	}
	e, _, err := wire.DecodeEntry(io.objects["journal_data.7.img.4"])
	if err != nil || e.Tag != 1 || e.TID != 0 {
		t.Fatalf("%+v, %v", e, err)
	}
	if _, err := j.AppendFirst(t.Context(), 1, wire.Rename{Name: strings.Repeat("n", 4096)}, time.Unix(1, 0)); !errors.Is(err, syscall.EMSGSIZE) {
		t.Errorf("%v", err)
	}
}
