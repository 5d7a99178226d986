package membership

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/rados"
)

func sampleRecord() record {
	return record{3, Member{
		ID: "4123", Host: "node-a", Identity: "rbd-warden boot=b pidns=pid:[1] pid=7 start=9", Seat: "node-a/rbd-mirror/1", Index: 1,
		Started: time.Unix(1700000000, 5), Draining: true, Address: "10.0.0.1:7000", Fingerprint: "ab:cd",
		Extra: map[string]string{"version": "1.2", "zone": ""},
	}}
}

// codecs decode any bytes as each of the stored types, and encode what they found.
var codecs = map[string]func(b []byte) (encoder, error){
	"record":    func(b []byte) (encoder, error) { return class.Decode("key", b, readRecord) },
	"beat":      func(b []byte) (encoder, error) { return class.Decode("key", b, readBeat) },
	"tombstone": func(b []byte) (encoder, error) { return class.Decode("key", b, readTombstone) },
	"message":   func(b []byte) (encoder, error) { return class.Decode("key", b, readMessage) },
}

func samples() map[string]encoder {
	return map[string]encoder{
		"record":    sampleRecord(),
		"beat":      beat{0x1122334455667788, 3},
		"tombstone": tombstone{sampleRecord(), "4", "10.0.0.1:0/5", time.Unix(1700000001, 0), "no heartbeat"},
		"message":   message{aboutPayload, []byte("map")},
	}
}

// What is stored stays readable: these bytes are in clusters.
var golden = map[string]string{
	"beat":    "01010c00000088776655443322110300" + "0000",
	"message": "01010b0000000200000003000000" + "6d6170",
	"record": "0101a7000000" + "03000000" + "0400000034313233" + "060000006e6f64652d61" +
		"2d0000007262642d77617264656e20626f6f743d622070696" + "46e733d7069643a5b315d207069643d372073746172743d39" +
		"130000006e6f64652d612f7262642d6d6972726f722f31" + "01000000" + "00f1536505000000" + "01" +
		"0d00000031302e302e302e313a37303030" + "0500000061623a6364" +
		"02000000" + "0700000076657273696f6e" + "03000000312e32" + "040000007a6f6e65" + "00000000",
}

func TestCodecs(t *testing.T) {
	for name, v := range samples() {
		b := bytesOf(v)
		if want, ok := golden[name]; ok && hex.EncodeToString(b) != want {
			t.Errorf("%s is now\n%x, was\n%s", name, b, want)
		}
		got, err := codecs[name](b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if again := bytesOf(got); !bytes.Equal(again, b) {
			t.Errorf("%s: %x became %x", name, b, again)
		}
		for cut := range b {
			if _, err := codecs[name](b[:cut]); err == nil {
				t.Errorf("%s: decodes from its first %d of %d bytes", name, cut, len(b))
			}
		}
		// A newer release may append fields, and may say that old readers cannot read it.
		var longer, foreign encoding.Encoder
		longer.Struct(2, 1, func(e *encoding.Encoder) { e.Raw(b[6:]); e.String("new") })
		if _, err := codecs[name](longer.Bytes()); err != nil {
			t.Errorf("%s with a new field: %v", name, err)
		}
		foreign.Struct(2, 2, func(e *encoding.Encoder) { e.Raw(b[6:]) })
		if _, err := codecs[name](foreign.Bytes()); err == nil {
			t.Errorf("%s of an incompatible version decodes", name)
		}
	}
}

// FuzzCodecs: whatever is stored, decoding gives an error or a value that encodes to
// something that decodes to the same.
func FuzzCodecs(f *testing.F) {
	for _, v := range samples() {
		f.Add(bytesOf(v))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, decode := range codecs {
			v, err := decode(b)
			if err != nil {
				continue
			}
			first := bytesOf(v)
			again, err := decode(first)
			if err != nil || !bytes.Equal(bytesOf(again), first) {
				t.Fatalf("%s: %x decodes, encodes to %x, and then: %v", name, b, first, err)
			}
		}
	})
}

// A worker that ends of it must be told from one that could not work at all: the daemon gives up the latter at its start.
func TestToBeRemovedIsToBeFenced(t *testing.T) {
	for _, err := range []error{ErrRemoved, fmt.Errorf("heartbeat: %w", ErrRemoved)} {
		if class := rados.Classify(err); class != rados.Fenced || !errors.Is(err, ErrRemoved) {
			t.Errorf("%v is %v", err, class)
		}
	}
	if rados.Classify(ErrAlive) == rados.Fenced {
		t.Error("somebody else's sign of life fences this process")
	}
}
