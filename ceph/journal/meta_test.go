package journal

import (
	"encoding/hex"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

func TestClientDataComesBack(t *testing.T) {
	n := uint64(123)
	for _, want := range []ClientMeta{
		ImageClientMeta{TagClass: 3, ResyncRequested: true},
		MirrorPeerClientMeta{},
		MirrorPeerClientMeta{
			ImageID: "i", State: PeerReplaying, SyncObjectCount: 7,
			SyncPoints: []SyncPoint{{SnapName: "a"}, {SnapName: "b", FromSnapName: "a", ObjectNumber: &n}},
			SnapSeqs:   map[uint64]uint64{1: 2, 3: 4, 9: 8},
		},
		MirrorPeerClientMeta{Covered: Covered{At: ObjectPosition{Object: 5, Tag: 2, Entry: 77}, Open: []OpTID{9, 4}}},
		CLIClientMeta{},
		UnknownClientMeta{Type: 77, Raw: []byte{1, 2}},
	} {
		b := EncodeClientData(want)
		got, err := DecodeClientData(b)
		if err != nil {
			t.Errorf("%+v: %v", want, err)
		} else if d := cmp.Diff(want, got); d != "" {
			t.Error(d)
		}
		for n := range b {
			if _, err := DecodeClientData(b[:n]); err == nil {
				t.Errorf("%T: %d of %d bytes decode", want, n, len(b))
			}
		}
	}
}

func TestSyncPointOfVersion1HasNoNamespace(t *testing.T) {
	var e encoding.Encoder
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(mirrorPeerClientMeta)
		e.String("i")
		e.U32(0)
		e.U64(0)
		e.U32(1)
		e.String("snap")
		e.String("")
		e.Bool(false)
		e.U32(0)
	})
	got, err := DecodeClientData(e.Bytes())
	want := MirrorPeerClientMeta{ImageID: "i", SyncPoints: []SyncPoint{{SnapName: "snap"}}}
	if err != nil || !cmp.Equal(got, ClientMeta(want)) {
		t.Fatalf("%+v, %v", got, err)
	}
}

// TestCallInputs pins what the calls with arguments send, as
// src/cls/journal/cls_journal_client.cc encodes it.
func TestCallInputs(t *testing.T) {
	class := TagClass(2)
	for _, c := range []struct {
		method string
		in     []byte
		want   string
	}{
		{"create", Create(24, 4, -1).In, "18" + "04" + "ffffffffffffffff"},
		{"client_register", ClientRegister("ab", []byte{9}).In, "02000000" + "6162" + "01000000" + "09"},
		{"client_update_state", ClientUpdateState("a", Disconnected).In, "01000000" + "61" + "01"},
		{"client_commit", ClientCommit("a", nil).In, "01000000" + "61" + "0101" + "04000000" + "00000000"},
		{"client_list", ClientList("a", 3).In, "01000000" + "61" + "0300000000000000"},
		{"tag_create", TagCreate(1, NewTagClass, nil).In, "0100000000000000" + "ffffffffffffffff" + "00000000"},
		{"tag_list", TagList(1, 2, "", nil).In, "0100000000000000" + "0200000000000000" + "00000000" + "00"},
		{"tag_list", TagList(1, 2, "", &class).In, "0100000000000000" + "0200000000000000" + "00000000" + "01" + "0200000000000000"},
		{"append", Append(16, []byte{1}).In, "1000000000000000" + "01000000" + "01"},
	} {
		if got := hex.EncodeToString(c.in); got != c.want {
			t.Errorf("%s: %s, want %s", c.method, got, c.want)
		}
	}
}

func TestListRepliesAreCopiedAndBounded(t *testing.T) {
	var e encoding.Encoder
	e.U32(2)
	Client{ID: "", Data: []byte("x")}.Encode(&e)
	Client{ID: "peer", Data: []byte("y"), CommitPosition: ObjectSetPosition{{Object: 5, Tag: 1, Entry: 2}}, State: Disconnected}.Encode(&e)
	e.U8(0xaa) // newer daemons may append
	reply := e.Bytes()
	clients, err := ClientList("", MaxReturn).Decode(reply)
	if err != nil || len(clients) != 2 {
		t.Fatal(clients, err)
	}
	clear(reply)
	want := Client{ID: "peer", Data: []byte("y"), CommitPosition: ObjectSetPosition{{Object: 5, Tag: 1, Entry: 2}}, State: Disconnected}
	if d := cmp.Diff(want, clients[1]); d != "" {
		t.Fatal(d)
	}
	if _, err := TagList(0, MaxReturn, "", nil).Decode([]byte{0xff, 0xff, 0xff, 0xff, 0}); err == nil {
		t.Fatal("a count of four thousand million was believed")
	}
}

func TestNames(t *testing.T) {
	if got := HeaderObject("10a"); got != "journal.10a" {
		t.Error(got)
	}
	if got := DataObject(4, "10a", 12); got != "journal_data.4.10a.12" {
		t.Error(got)
	}
	if n := ObjectNumber(13); n.Set(4) != 3 || n.SplayOffset(4) != 1 || ObjectSet(3).Object(4, 1) != 13 {
		t.Error("object 13 is not set 3, offset 1")
	}
}
