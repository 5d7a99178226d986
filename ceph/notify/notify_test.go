package notify

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

var (
	client  = ClientID{GlobalID: 1, Handle: 2}
	request = AsyncRequestID{Client: ClientID{0, 1}, Request: 2}
	value   = "v"
)

const (
	clientHex  = "0100000000000000 0200000000000000"
	requestHex = "0000000000000000 0100000000000000 0200000000000000"
	userHex    = "0101 04000000 00000000" // the namespace of user snapshots
)

// golden has a message of every kind and version.
var golden = []struct {
	message Message
	hex     string
}{
	{Message{7, AcquiredLock{client}}, "0701 14000000 00000000" + clientHex},
	{Message{1, AcquiredLock{}}, "0101 04000000 00000000"},
	{Message{7, ReleasedLock{client}}, "0701 14000000 01000000" + clientHex},
	{Message{7, RequestLock{client, true}}, "0701 15000000 02000000" + clientHex + "01"},
	{Message{2, RequestLock{client, false}}, "0201 14000000 02000000" + clientHex},
	{Message{7, HeaderUpdate{}}, "0701 04000000 03000000"},
	{Message{7, AsyncProgress{request, 3, 4}}, "0701 2c000000 04000000" + requestHex + "0300000000000000 0400000000000000"},
	{Message{7, AsyncComplete{request, -30}}, "0701 20000000 05000000" + requestHex + "e2ffffff"},
	{Message{7, Flatten{request}}, "0701 1c000000 06000000" + requestHex},
	{Message{7, Resize{123, request, true}}, "0701 25000000 07000000 7b00000000000000" + requestHex + "01"},
	{Message{3, Resize{123, request, true}}, "0301 24000000 07000000 7b00000000000000" + requestHex},
	{Message{7, SnapCreate{"foo", SnapNamespace{}, request, 1}}, "0701 35000000 08000000 03000000 666f6f" + userHex + requestHex + "0100000000000000"},
	{Message{6, SnapCreate{Name: "foo"}}, "0601 15000000 08000000 03000000 666f6f" + userHex},
	{Message{5, SnapCreate{Name: "foo"}}, "0501 15000000 08000000 03000000 666f6f" + userHex},
	{Message{4, SnapCreate{Name: "foo"}}, "0401 0b000000 08000000 03000000 666f6f"},
	{Message{7, SnapRemove{"foo", SnapNamespace{Type: SnapTrash, Body: []byte{9, 8}}, request}}, "0701 2f000000 09000000 03000000 666f6f 0101 06000000 02000000 0908" + requestHex},
	{Message{5, SnapRemove{Name: "foo"}}, "0501 0b000000 09000000 03000000 666f6f"},
	{Message{7, RebuildObjectMap{request}}, "0701 1c000000 0a000000" + requestHex},
	{Message{7, SnapRename{5, "foo", SnapNamespace{}, request}}, "0701 35000000 0b000000 0500000000000000 03000000 666f6f" + userHex + requestHex},
	{Message{7, SnapProtect{"foo", SnapNamespace{}, request}}, "0701 2d000000 0c000000 03000000 666f6f" + userHex + requestHex},
	{Message{7, SnapUnprotect{"foo", SnapNamespace{}, request}}, "0701 2d000000 0d000000 03000000 666f6f" + userHex + requestHex},
	{Message{7, Rename{"foo", request}}, "0701 23000000 0e000000 03000000 666f6f" + requestHex},
	{Message{6, Rename{Name: "foo"}}, "0601 0b000000 0e000000 03000000 666f6f"},
	{Message{7, UpdateFeatures{1, true, request}}, "0701 25000000 0f000000 0100000000000000 01" + requestHex},
	{Message{6, UpdateFeatures{Features: 1, Enabled: true}}, "0601 0d000000 0f000000 0100000000000000 01"},
	{Message{7, Migrate{request}}, "0701 1c000000 10000000" + requestHex},
	{Message{7, Sparsify{request, 1}}, "0701 24000000 11000000" + requestHex + "0100000000000000"},
	{Message{7, Quiesce{request}}, "0701 1c000000 12000000" + requestHex},
	{Message{7, Unquiesce{request}}, "0701 1c000000 13000000" + requestHex},
	{Message{7, MetadataUpdate{"k", &value, request}}, "0701 27000000 14000000 01000000 6b 01 01000000 76" + requestHex},
	{Message{7, MetadataUpdate{"k", nil, request}}, "0701 22000000 14000000 01000000 6b 00" + requestHex},
	{Message{7, Unknown{99, []byte{1, 2, 3}}}, "0701 07000000 63000000 010203"},
}

// captured has notifications of rbd's commands, 16.2.15.
var captured = []struct {
	command string
	want    Payload
	hex     string
}{
	{"rbd image-meta set p/zz k v", MetadataUpdate{"k", &value, AsyncRequestID{ClientID{4122, 140404359959840}, 1}}, "07012700000014000000010000006b0101000000761a1000000000000020150070b27f00000100000000000000"},
	{"rbd resize -s 128M p/zz", Resize{128 << 20, AsyncRequestID{ClientID{4126, 139652740706480}, 1}, false}, "0701250000000700000000000008000000001e10000000000000b0700070037f0000010000000000000000"},
	{"rbd rename p/zz p/other", Rename{"other", AsyncRequestID{ClientID{4128, 139782529226160}, 1}}, "0701250000000e000000050000006f746865722010000000000000b01500a8217f00000100000000000000"},
	{"rbd feature disable p/zz fast-diff", UpdateFeatures{16, false, AsyncRequestID{ClientID{4137, 140194711868880}, 1}}, "0701250000000f0000001000000000000000002910000000000000d01500a0817f00000100000000000000"},
	{"rbd object-map rebuild p/zz", RebuildObjectMap{AsyncRequestID{ClientID{4139, 140605820769648}, 1}}, "07011c0000000a0000002b1000000000000070150058e17f00000100000000000000"},
	{"rbd sparsify p/zz", Sparsify{AsyncRequestID{ClientID{4141, 139759913538960}, 1}, 4096}, "070124000000110000002d10000000000000901500641c7f000001000000000000000010000000000000"},
	{"rbd snap create --skip-quiesce p/zz@new", SnapCreate{"new", SnapNamespace{}, AsyncRequestID{ClientID{4145, 140043851142432}, 1}, 2}, "07013500000008000000030000006e6577010104000000000000003110000000000000201500805e7f000001000000000000000200000000000000"},
	{"rbd bench p/zz", RequestLock{ClientID{4147, 139918760219936}, false}, "07011500000002000000331000000000000020150060417f000000"},
}

func TestCaptured(t *testing.T) {
	for _, c := range captured {
		b := unhex(t, c.hex)
		got, err := Decode(b)
		if diff := cmp.Diff(Message{7, c.want}, got); diff != "" || err != nil {
			t.Errorf("%s: %v, %s", c.command, err, diff)
		} else if again := got.Encode(); !bytes.Equal(again, b) {
			t.Errorf("%s: encodes to\n%x, want\n%x", c.command, again, b)
		}
	}
}

func TestGolden(t *testing.T) {
	seen := map[Op]bool{}
	for _, g := range golden {
		b := unhex(t, g.hex)
		got, err := Decode(b)
		if err != nil {
			t.Errorf("%v: %v", g.message.Payload.Op(), err)
			continue
		}
		if diff := cmp.Diff(g.message, got); diff != "" {
			t.Errorf("%v: %s", g.message.Payload.Op(), diff)
		}
		if again := g.message.Encode(); !bytes.Equal(again, b) {
			t.Errorf("%v: encodes to\n%x, want\n%x", g.message.Payload.Op(), again, b)
		}
		if id, ok := RequestID(got.Payload); ok && id != request {
			t.Errorf("%v: request %v", g.message.Payload.Op(), id)
		} else if want := got.Payload.Op().IsRequest(); ok != want && got.Version == 7 {
			t.Errorf("%v: has a request id: %v, want %v", g.message.Payload.Op(), ok, want)
		}
		seen[g.message.Payload.Op()] = true
	}
	for op := range decoders {
		if !seen[op] {
			t.Errorf("no example of %v", op)
		}
		if strings.HasPrefix(op.String(), "Op(") {
			t.Errorf("%v has no name", op)
		}
	}
	if Op(99).String() != "Op(99)" {
		t.Error(Op(99))
	}
}

func TestNewestVersionIsWritten(t *testing.T) {
	m, err := Decode(Encode(Rename{"foo", request}))
	if err != nil || m.Version != Version || m.Payload != (Rename{"foo", request}) {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestEmptyIsHeaderUpdate(t *testing.T) {
	if m, err := Decode(nil); err != nil || m.Payload != (HeaderUpdate{}) {
		t.Errorf("%+v, %v", m, err)
	}
}

func TestDamaged(t *testing.T) {
	for _, g := range golden {
		b := unhex(t, g.hex)
		for cut := 1; cut < len(b); cut++ {
			m, err := Decode(b[:cut])
			var corrupt *encoding.CorruptError
			if !errors.As(err, &corrupt) {
				t.Errorf("%v: decodes from its first %d of %d bytes: %+v", g.message.Payload.Op(), cut, len(b), m)
			}
		}
	}
	if _, err := Decode(unhex(t, "0808 04000000 03000000")); err == nil {
		t.Error("decodes what needs a newer reader")
	}
}

func TestResponse(t *testing.T) {
	b := unhex(t, "0101 04000000 e2ffffff")
	if r, err := DecodeResponse(b); err != nil || r.Result != -30 {
		t.Errorf("%+v, %v", r, err)
	}
	if got := (Response{-30}).Encode(); !bytes.Equal(got, b) {
		t.Errorf("%x", got)
	}
	if _, err := DecodeResponse(b[:9]); err == nil {
		t.Error("decodes half a response")
	}
}

func TestLeader(t *testing.T) {
	for h, want := range map[string]LeaderMessage{
		"0101 04000000 00000000":      {Op: LeaderHeartbeat},
		"0101 04000000 01000000":      {Op: LeaderLockAcquired},
		"0101 04000000 02000000":      {Op: LeaderLockReleased},
		"0101 06000000 09000000 0102": {Op: 9, Raw: []byte{1, 2}},
	} {
		got, err := DecodeLeader(unhex(t, h))
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s: %v, %s", h, err, diff)
		}
		if again := got.Encode(); !bytes.Equal(again, unhex(t, h)) {
			t.Errorf("%s: encodes to %x", h, again)
		}
	}
	if m, err := DecodeLeader(unhex(t, "0101 04000000 0000")); err == nil {
		t.Errorf("%+v", m)
	}
	for op, want := range map[LeaderOp]string{0: "Heartbeat", 1: "LockAcquired", 2: "LockReleased", 3: "LeaderOp(3)"} {
		if op.String() != want {
			t.Errorf("%v, want %s", op, want)
		}
	}
}

func TestTrash(t *testing.T) {
	for h, want := range map[string]TrashPayload{
		"0101 0a000000 01000000 02000000 6964": TrashRemoved{"id"},
		"0101 2a000000 00000000 02000000 6964 0201 1a000000 01 04000000 6e616d65 01000000 02000000 0300000000000000 05": TrashAdded{
			"id", TrashSpec{Source: 1, Name: "name", Deleted: time.Unix(1, 2), DeferredUntil: time.Unix(3, 0), State: 5},
		},
		"0101 05000000 07000000 aa": TrashUnknown{7, []byte{0xaa}},
	} {
		b := unhex(t, h)
		got, err := DecodeTrash(b)
		if diff := cmp.Diff(TrashMessage{want}, got); diff != "" || err != nil {
			t.Errorf("%s: %v, %s", h, err, diff)
			continue
		}
		if again := got.Encode(); !bytes.Equal(again, b) {
			t.Errorf("%s: encodes to %x", h, again)
		}
		for cut := range b {
			if m, err := DecodeTrash(b[:cut]); err == nil {
				t.Errorf("%s: decodes from its first %d bytes: %+v", h, cut, m)
			}
		}
	}
}

// corpus has the decoder of every message by its type's name in Ceph.
var corpus = map[string]func([]byte) ([]byte, error){
	"librbd.watch_notify.NotifyMessage": func(b []byte) ([]byte, error) {
		m, err := Decode(b)
		if err != nil {
			return nil, err
		}
		if u, ok := m.Payload.(Unknown); ok {
			return nil, errors.New(u.Operation.String() + " is not known")
		}
		return m.Encode(), nil
	},
	"librbd.watch_notify.ResponseMessage": func(b []byte) ([]byte, error) {
		r, err := DecodeResponse(b)
		return r.Encode(), err
	},
	"librbd.trash_watcher.NotifyMessage": func(b []byte) ([]byte, error) {
		m, err := DecodeTrash(b)
		if err != nil {
			return nil, err
		}
		return m.Encode(), nil
	},
}

// TestCorpus decodes and encodes again what real daemons of several releases
// encoded. WARDEN_CORPUS names a folder with RELEASE/TYPE/FILE.
func TestCorpus(t *testing.T) {
	root := os.Getenv("WARDEN_CORPUS")
	if root == "" {
		t.Skip("WARDEN_CORPUS is not set")
	}
	for name, again := range corpus {
		files, err := filepath.Glob(filepath.Join(root, "*", name, "*"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: nothing in the corpus: %v", name, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := again(b); err != nil || !bytes.Equal(got, b) {
				t.Errorf("%s: encodes to\n%x, want\n%x, %v", file, got, b, err)
			}
		}
	}
}

// FuzzMessages feeds arbitrary bytes to every decoder. What decodes must encode,
// and decode again to the same; nothing may panic.
func FuzzMessages(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.hex))
	}
	f.Add(TrashMessage{TrashAdded{ImageID: "id", Spec: TrashSpec{Name: "n"}}}.Encode())
	f.Add(LeaderMessage{Op: LeaderHeartbeat}.Encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := Decode(b); err == nil && len(b) > 0 && m.Version <= Version && m.Version > 0 {
			again, err := Decode(m.Encode())
			if err != nil {
				t.Fatalf("%+v: %v", m, err)
			}
			if diff := cmp.Diff(m, again); diff != "" {
				t.Fatal(diff)
			}
			RequestID(m.Payload)
		}
		if m, err := DecodeTrash(b); err == nil {
			if again, err := DecodeTrash(m.Encode()); err != nil || cmp.Diff(m, again) != "" {
				t.Fatalf("%+v: %+v, %v", m, again, err)
			}
		}
		if m, err := DecodeLeader(b); err == nil {
			if again, err := DecodeLeader(m.Encode()); err != nil || cmp.Diff(m, again) != "" {
				t.Fatalf("%+v: %+v, %v", m, again, err)
			}
		}
		if r, err := DecodeResponse(b); err == nil {
			if again, err := DecodeResponse(r.Encode()); err != nil || again != r {
				t.Fatalf("%+v: %+v, %v", r, again, err)
			}
		}
	})
}
