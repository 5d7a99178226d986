package lock

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

type encoder interface{ Encode(e *encoding.Encoder) }

// encodeFunc makes an encoder of a method.
type encodeFunc func(e *encoding.Encoder)

func (f encodeFunc) Encode(e *encoding.Encoder) { f(e) }

func decodeWith[T any](decode func(*encoding.Decoder) T, encode func(T, *encoding.Encoder)) func([]byte) (encoder, error) {
	return func(b []byte) (encoder, error) {
		d := encoding.NewDecoder("test", b)
		v := decode(d)
		return encodeFunc(func(e *encoding.Encoder) { encode(v, e) }), d.Err()
	}
}

// records has the decoder of every record by its type's name in Ceph.
var records = map[string]func([]byte) (encoder, error){
	"cls_lock_lock_op":       decodeWith(decodeRequest, Request.encode),
	"cls_lock_unlock_op":     decodeWith(decodeUnlockOp, unlockOp.encode),
	"cls_lock_break_op":      decodeWith(decodeBreakOp, breakOp.encode),
	"cls_lock_get_info_op":   decodeWith(decodeGetInfoOp, getInfoOp.encode),
	"cls_lock_assert_op":     decodeWith(decodeAssertOp, assertOp.encode),
	"cls_lock_set_cookie_op": decodeWith(decodeSetCookieOp, setCookieOp.encode),
	"cls_lock_list_locks_reply": decodeWith(decodeListReply, func(names []string, e *encoding.Encoder) {
		encodeListReply(e, names)
	}),
	"cls_lock_get_info_reply":      func(b []byte) (encoder, error) { return DecodeInfo(b) },
	"rados.cls.lock.lock_info_t":   func(b []byte) (encoder, error) { return DecodeInfo(b) },
	"rados.cls.lock.locker_id_t":   decodeWith(DecodeLockerID, LockerID.Encode),
	"rados.cls.lock.locker_info_t": decodeWith(DecodeLockerInfo, LockerInfo.Encode),
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
			roundTrip(t, strings.TrimPrefix(file, root), b, decode)
		}
	}
}

// roundTrip fails unless b decodes, and what was decoded encodes to b again.
func roundTrip(t *testing.T, name string, b []byte, decode func([]byte) (encoder, error)) {
	t.Helper()
	r, err := decode(b)
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	var e encoding.Encoder
	r.Encode(&e)
	if !bytes.Equal(e.Bytes(), b) {
		t.Errorf("%s: encodes to\n%x, want\n%x", name, e.Bytes(), b)
	}
	for cut := range b {
		if _, err := decode(b[:cut]); err == nil {
			t.Errorf("%s: decodes from its first %d of %d bytes", name, cut, len(b))
		}
	}
}

// FuzzRecords feeds arbitrary bytes to every decoder. What decodes must encode, and
// decode again to the same bytes; nothing may panic.
func FuzzRecords(f *testing.F) {
	for _, g := range golden {
		f.Add(unhex(f, g.hex))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, decode := range records {
			r, err := decode(b)
			if err != nil {
				continue
			}
			var first, second encoding.Encoder
			r.Encode(&first)
			again, err := decode(first.Bytes())
			if err != nil {
				t.Fatalf("%s: encodes to %x: %v", name, first.Bytes(), err)
			}
			again.Encode(&second)
			if !bytes.Equal(first.Bytes(), second.Bytes()) {
				t.Fatalf("%s: encodes to %x, then to %x", name, first.Bytes(), second.Bytes())
			}
		}
	})
}
