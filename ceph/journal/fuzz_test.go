package journal

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// seed adds the captured vectors whose names match, and made-up ones.
func seed(f *testing.F, pattern string, made ...[]byte) {
	files, err := filepath.Glob(filepath.Join("testdata", pattern))
	if err != nil || len(files) == 0 {
		f.Fatalf("no vectors %s: %v", pattern, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, b := range made {
		f.Add(b)
	}
}

func FuzzDecodeEntry(f *testing.F) {
	seed(f, "pacific/object.*")
	f.Fuzz(func(t *testing.T, b []byte) {
		e, n, err := DecodeEntry(b)
		if err != nil {
			return
		}
		if again := Marshal(e); !bytes.Equal(again, b[:n]) {
			t.Fatalf("%x became %x", b[:n], again)
		}
	})
}

func FuzzPadding(f *testing.F) {
	f.Add(make([]byte, 24), uint64(5))
	f.Add([]byte{0, 0, 0x93}, uint64(6))
	f.Fuzz(func(t *testing.T, b []byte, offset uint64) {
		n, err := Padding(b, offset)
		if n < 0 || n > len(b) || bytes.ContainsFunc(b[:n], func(r rune) bool { return r != 0 }) {
			t.Fatalf("%d bytes of %x", n, b)
		}
		if err == nil && n < len(b) && b[n] == 0 {
			t.Fatalf("stopped at %d, within padding", n)
		}
	})
}

func FuzzDecodeEvent(f *testing.F) {
	var made [][]byte
	for _, event := range everyEvent() {
		made = append(made, Marshal(EventEntry{Event: event}))
	}
	seed(f, "pacific/event.*", made...)
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := DecodeEvent(b)
		if err != nil {
			return
		}
		again, err := DecodeEvent(Marshal(v))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(v, again); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzDecodeClientData(f *testing.F) {
	seed(f, "pacific/clientdata.*", EncodeClientData(MirrorPeerClientMeta{SyncPoints: []SyncPoint{{SnapName: "s"}}, SnapSeqs: map[uint64]uint64{1: 2}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeClientData(b)
		if err != nil {
			return
		}
		again, err := DecodeClientData(EncodeClientData(m))
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(m, again); d != "" {
			t.Fatal(d)
		}
	})
}

func FuzzDecodeTagData(f *testing.F) {
	seed(f, "pacific/tagdata.*")
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := DecodeTagData(b)
		if err != nil {
			return
		}
		if again, err := DecodeTagData(Marshal(v)); err != nil || again != v {
			t.Fatalf("%+v became %+v, %v", v, again, err)
		}
	})
}

func fuzzStruct[P interface {
	*T
	encodable
	Decode(*encoding.Decoder)
}, T any](f *testing.F) {
	f.Fuzz(func(t *testing.T, b []byte) {
		d := encoding.NewDecoder("fuzz", b)
		v := P(new(T))
		v.Decode(d)
		if d.Err() != nil {
			return
		}
		d = encoding.NewDecoder("fuzz", Marshal(v))
		again := P(new(T))
		again.Decode(d)
		if err := d.Err(); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(v, again); diff != "" {
			t.Fatal(diff)
		}
	})
}

func FuzzDecodeClient(f *testing.F) {
	seed(f, "pacific/client.*")
	fuzzStruct[*Client](f)
}

func FuzzDecodeTag(f *testing.F) {
	seed(f, "pacific/tag.*")
	fuzzStruct[*Tag](f)
}

func FuzzDecodeObjectSetPosition(f *testing.F) {
	f.Add(Marshal(ObjectSetPosition{{Object: 1, Tag: 2, Entry: 3}, {Object: 4}}))
	fuzzStruct[*ObjectSetPosition](f)
}

func FuzzDecodeReplies(f *testing.F) {
	var e encoding.Encoder
	e.U32(1)
	Client{ID: "peer", CommitPosition: ObjectSetPosition{{}}}.Encode(&e)
	f.Add(e.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		// None may panic or allocate without bound; what they accept is above.
		clients, err := ClientList("", MaxReturn).Decode(b)
		if err == nil && len(clients) > len(b) {
			t.Fatalf("%d clients of %d bytes", len(clients), len(b))
		}
		tags, err := TagList(0, MaxReturn, "", nil).Decode(b)
		if err == nil && len(tags) > len(b) {
			t.Fatalf("%d tags of %d bytes", len(tags), len(b))
		}
	})
}
