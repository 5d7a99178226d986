package mirror

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

type encoder interface{ Encode(e *encoding.Encoder) }

type eventRecord struct{ Event }

func (r eventRecord) Encode(e *encoding.Encoder) { e.Raw(EncodeEvent(r.Event)) }

// records has the decoder of every record by its type's name in Ceph.
var records = map[string]func([]byte) (encoder, error){
	"cls.rbd.MirrorPeer":                  func(b []byte) (encoder, error) { return DecodePeer(b) },
	"cls.rbd.MirrorImage":                 func(b []byte) (encoder, error) { return DecodeImage(b) },
	"cls.rbd.MirrorImageSiteStatus":       func(b []byte) (encoder, error) { return DecodeStatus(b) },
	"cls.rbd.MirrorImageSiteStatusOnDisk": func(b []byte) (encoder, error) { return DecodeStoredStatus(b) },
	"cls.rbd.MirrorImageStatus":           func(b []byte) (encoder, error) { return DecodeImageStatus(b) },
	"cls.rbd.MirrorImageMap":              func(b []byte) (encoder, error) { return DecodeImageMap(b) },
	"rbd.mirror.image_map.PolicyData":     func(b []byte) (encoder, error) { return DecodePolicyData(b) },
	"librbd.mirroring_watcher.NotifyMessage": func(b []byte) (encoder, error) {
		ev, err := DecodeEvent(b)
		return eventRecord{ev}, err
	},
}

func encoded(r encoder) []byte {
	var e encoding.Encoder
	r.Encode(&e)
	return e.Bytes()
}

func roundTrip(t *testing.T, name string, b []byte, decode func([]byte) (encoder, error)) {
	t.Helper()
	r, err := decode(b)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if got := encoded(r); !bytes.Equal(got, b) {
		t.Errorf("%s: decoded %+v, which encodes to\n%x, not\n%x", name, r, got, b)
	}
}

// TestCorpus decodes and encodes again what real daemons of several releases
// encoded. WARDEN_CORPUS names a folder with RELEASE/TYPE/FILE.
func TestCorpus(t *testing.T) {
	root := os.Getenv("WARDEN_CORPUS")
	if root == "" {
		t.Skip("WARDEN_CORPUS is not set")
	}
	for name, decode := range records {
		files, err := filepath.Glob(filepath.Join(root, "*", name, "*"))
		if err != nil || len(files) == 0 {
			t.Errorf("%s: nothing in the corpus: %v", name, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			roundTrip(t, file, b, decode)
		}
	}
}

// captured reads the omaps of a file in testdata, see its README.md.
func captured(t testing.TB, file string) map[string]map[string][]byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	var list []struct {
		Object string            `json:"object"`
		Omap   map[string]string `json:"omap"`
	}
	if err := json.Unmarshal(b, &list); err != nil {
		t.Fatal(err)
	}
	objects := map[string]map[string][]byte{}
	for _, o := range list {
		objects[o.Object] = map[string][]byte{}
		for key, value := range o.Omap {
			raw, err := hex.DecodeString(value)
			if err != nil {
				t.Fatal(err)
			}
			objects[o.Object][key] = raw
		}
	}
	return objects
}

// keys says which record the omap keys of rbd_mirroring and rbd_mirror_leader hold.
var keys = map[string]string{
	"mirror_peer_":          "cls.rbd.MirrorPeer",
	"image_map_":            "cls.rbd.MirrorImageMap",
	"image_":                "cls.rbd.MirrorImage",
	"status_global_":        "cls.rbd.MirrorImageSiteStatusOnDisk",
	"remote_status_global_": "cls.rbd.MirrorImageSiteStatusOnDisk",
}

func recordOf(key string) string {
	longest := ""
	for prefix := range keys {
		if strings.HasPrefix(key, prefix) && len(prefix) > len(longest) {
			longest = prefix
		}
	}
	return keys[longest]
}

const (
	globalID      = "f74da785-8e72-4d4a-b609-9f9d5ea44def"
	secondaryUUID = "b668e4dc-97db-4b49-a8be-31460a7628ee"
)

func TestCapturedRecordsRoundTrip(t *testing.T) {
	seen := 0
	for _, file := range []string{"primary.json", "secondary.json"} {
		for object, omap := range captured(t, file) {
			for key, b := range omap {
				if name := recordOf(key); name != "" {
					seen++
					roundTrip(t, file+" "+object+" "+key, b, records[name])
				}
			}
		}
	}
	if seen != 7 {
		t.Errorf("%d records, want 7", seen)
	}
}

func TestCapturedStatuses(t *testing.T) {
	local, err := DecodeStoredStatus(captured(t, "secondary.json")[Object][StatusKey(globalID, LocalUUID)])
	if err != nil {
		t.Fatal(err)
	}
	remote, err := DecodeStoredStatus(captured(t, "primary.json")[Object][StatusKey(globalID, secondaryUUID)])
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []StoredStatus{local, remote} {
		// The key alone says whose status it is; the clock is the OSD's.
		if s.MirrorUUID != LocalUUID || s.State != StatusReplaying || !strings.HasPrefix(s.Description, "replaying, {") ||
			s.Up || s.LastUpdate.IsZero() || s.Writer.Type.String() != "client" || s.Writer.Num == 0 {
			t.Errorf("%+v", s)
		}
	}
	if local.Writer.Num != 0x1031 {
		t.Errorf("written by %v, want client.4145", local.Writer)
	}
}

func TestCapturedPeersAndImages(t *testing.T) {
	primary, secondary := captured(t, "primary.json"), captured(t, "secondary.json")
	peer, err := DecodePeer(primary[Object]["mirror_peer_446b9539-dd8d-4c63-b00f-cce9ed8e3a07"])
	want := Peer{UUID: "446b9539-dd8d-4c63-b00f-cce9ed8e3a07", Direction: DirectionRXTX, SiteName: "site-l",
		ClientName: "client.rbd-mirror-peer", MirrorUUID: secondaryUUID}
	if d := cmp.Diff(want, peer, cmpopts.IgnoreFields(Peer{}, "LastSeen")); d != "" || err != nil {
		t.Errorf("%v; -want +got\n%s", err, d)
	}
	if peer.LastSeen.IsZero() {
		t.Error("the peer had pinged")
	}
	image, err := DecodeImage(secondary[Object]["image_10317cbde159"])
	if d := cmp.Diff(Image{Mode: ImageJournal, GlobalID: globalID, State: ImageEnabled}, image); d != "" || err != nil {
		t.Errorf("%v; -want +got\n%s", err, d)
	}
	place, err := DecodeImageMap(secondary[LeaderObject]["image_map_"+globalID])
	if err != nil || place.InstanceID != "4145" || place.MappedTime.IsZero() {
		t.Errorf("%+v, %v", place, err)
	}
	if policy, err := DecodePolicyData(place.Data); err != nil || policy.Kind != PolicyNone {
		t.Errorf("%+v, %v", policy, err)
	}
	if !bytes.Equal(place.Data, PolicyData{}.Bytes()) {
		t.Errorf("policy data %x, want %x", PolicyData{}.Bytes(), place.Data)
	}
}

func TestEveryCutIsCorrupt(t *testing.T) {
	for key, b := range captured(t, "primary.json")[Object] {
		name := recordOf(key)
		for n := 0; name != "" && n < len(b); n++ {
			var corrupt *encoding.CorruptError
			if _, err := records[name](b[:n]); !errors.As(err, &corrupt) {
				t.Fatalf("%s cut to %d of %d bytes: %v", key, n, len(b), err)
			}
		}
	}
}

func TestImageStatusSites(t *testing.T) {
	at := time.Unix(1700000000, 0)
	local := Status{State: StatusStopped, LastUpdate: at, Up: true}
	remote := Status{MirrorUUID: "u", State: StatusReplaying, Description: "d", LastUpdate: at}
	for name, s := range map[string]ImageStatus{
		"none": {}, "local": {Sites: []Status{local}}, "remote": {Sites: []Status{remote}}, "both": {Sites: []Status{local, remote}},
	} {
		got, err := DecodeImageStatus(encoded(s))
		if d := cmp.Diff(s, got); d != "" || err != nil {
			t.Errorf("%s: %v; -want +got\n%s", name, err, d)
		}
		if _, ok := got.Local(); ok != (len(s.Sites) > 0 && s.Sites[0].MirrorUUID == LocalUUID) {
			t.Errorf("%s: local status found: %v", name, ok)
		}
	}
	if local.String() != "up+stopped" || remote.String() != "down+replaying" {
		t.Error(local, remote)
	}
}

// TestWords compares with the words that operators see.
func TestWords(t *testing.T) {
	words := func(n int, word func(i int) string) string {
		list := make([]string, n)
		for i := range list {
			list[i] = word(i)
		}
		return strings.Join(list, " ")
	}
	for want, got := range map[string]string{
		"unknown error syncing starting_replay replaying stopping_replay stopped unknown (7)": words(8, func(i int) string { return StatusState(i).String() }),
		"disabled image pool init-only unknown (4)":                                           words(5, func(i int) string { return Mode(i).String() }),
		"disabling enabled disabled creating unknown (4)":                                     words(5, func(i int) string { return ImageState(i).String() }),
		"rx-only tx-only rx-tx unknown":                                                       words(4, func(i int) string { return Direction(i).String() }),
		"journal snapshot unknown (2)":                                                        words(3, func(i int) string { return ImageMode(i).String() }),
	} {
		if got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if !DirectionRX.Receives() || DirectionTX.Receives() || !DirectionRXTX.Receives() {
		t.Error("Receives is wrong")
	}
}

// TestCallInputs compares inputs with bytes written out by hand from the layouts.
func TestCallInputs(t *testing.T) {
	for _, c := range []struct {
		call class.Call
		want string
	}{
		{SetMode(ModePool), "mirror_mode_set 02000000"},
		{GetMode().Call, "mirror_mode_get "},
		{PeerPing("s", "u"), "mirror_peer_ping 0100000073" + "0100000075" + "01"},
		{PeerSetDirection("u", DirectionRX), "mirror_peer_set_direction 0100000075" + "00"},
		{ImageList("a", 5).Call, "mirror_image_list 0100000061" + "0500000000000000"},
		{ImageSet("i", Image{Mode: ImageSnapshot, GlobalID: "g", State: ImageCreating}),
			"mirror_image_set 0100000069" + "020107000000" + "0100000067" + "0301"},
		{StatusSet("g", Status{State: StatusError, Description: "d"}),
			"mirror_image_status_set 0100000067" + "01010f000000" + "01" + "0100000064" + "0000000000000000" + "00"},
		{StatusSet("g", Status{MirrorUUID: "u", State: StatusError, Description: "d"}),
			"mirror_image_status_set 0100000067" + "020214000000" + "0100000075" + "01" + "0100000064" + "0000000000000000" + "00"},
		{StatusRemoveDown(), "mirror_image_status_remove_down "},
		{ImageMapUpdate("g", ImageMap{InstanceID: "7", Data: []byte{1}}),
			"mirror_image_map_update 0100000067" + "010112000000" + "0100000037" + "0000000000000000" + "0100000001"},
	} {
		if got := c.call.Method + " " + hex.EncodeToString(c.call.In); got != c.want || c.call.Class != "rbd" {
			t.Errorf("%s.%s,\nwant %s", c.call.Class, got, c.want)
		}
	}
}

func TestUnknownEventKeepsItsBytes(t *testing.T) {
	want := UnknownEvent{Operation: 9, Raw: []byte("new")}
	got, err := DecodeEvent(EncodeEvent(want))
	if d := cmp.Diff(Event(want), got); d != "" || err != nil {
		t.Errorf("%v; -want +got\n%s", err, d)
	}
}

// FuzzDecoders feeds arbitrary bytes to every decoder: nothing may panic, and what
// decodes must encode to something that decodes to the same.
func FuzzDecoders(f *testing.F) {
	for _, file := range []string{"primary.json", "secondary.json"} {
		for _, omap := range captured(f, file) {
			for _, b := range omap {
				f.Add(b)
			}
		}
	}
	f.Add(EncodeEvent(ImageUpdated{State: ImageEnabled, ImageID: "i", GlobalID: "g"}))
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, decode := range records {
			r, err := decode(b)
			if err != nil {
				continue
			}
			first := encoded(r)
			again, err := decode(first)
			if err != nil {
				t.Fatalf("%s: %+v encodes to %x: %v", name, r, first, err)
			}
			if second := encoded(again); !bytes.Equal(first, second) {
				t.Fatalf("%s: %x, then %x", name, first, second)
			}
		}
		_, _ = PeerList().Decode(b)
		_, _ = ImageList("", 1).Decode(b)
		_, _ = StatusList("", 1).Decode(b)
		_, _ = StatusSummary(nil).Decode(b)
		_, _ = InstanceList("", 1).Decode(b)
		_, _ = InstancesList().Decode(b)
		_, _ = ImageMapList("", 1).Decode(b)
	})
}
