package librados

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/rados"
)

func TestNotifyReply(t *testing.T) {
	e := encoding.NewEncoder(0)
	e.U32(2)
	for i := range uint64(2) {
		e.U64(4000 + i)
		e.U64(90 + i)
		e.Blob([]byte{byte(i)})
	}
	e.U32(1)
	e.U64(5000)
	e.U64(7)
	got, err := decodeNotifyReply(e.Bytes())
	want := rados.NotifyReply{
		Acks: []rados.NotifyAck{
			{Watcher: rados.Watcher{ClientID: 4000, Cookie: 90}, Reply: []byte{0}},
			{Watcher: rados.Watcher{ClientID: 4001, Cookie: 91}, Reply: []byte{1}},
		},
		Missed: []rados.Watcher{{ClientID: 5000, Cookie: 7}},
	}
	if d := cmp.Diff(want, got); err != nil || d != "" {
		t.Errorf("%v\n%s", err, d)
	}
	for n := range len(e.Bytes()) {
		var corrupt *encoding.CorruptError
		if _, err := decodeNotifyReply(e.Bytes()[:n]); !errors.As(err, &corrupt) {
			t.Errorf("%d of %d bytes: %v", n, len(e.Bytes()), err)
		}
	}
}

func TestDictionary(t *testing.T) {
	got, err := dictionary(map[string]string{"b": "2", "a": "1", "c": ""})
	if want := []byte("a\x001\x00b\x002\x00c\x00\x00\x00"); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%q, %v, want %q", got, err, want)
	}
	for _, bad := range []map[string]string{{"": "x"}, {"a\x00": "x"}, {"a": "x\x00y"}} {
		if _, err := dictionary(bad); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestResultError(t *testing.T) {
	var m *rados.MismatchError
	if err := resultError(-4095 - 17); !errors.As(err, &m) || m.Offset != 17 {
		t.Errorf("mismatch at 17 became %v", err)
	}
	if err := resultError(-4095); !errors.As(err, &m) || m.Offset != 0 {
		t.Errorf("mismatch at 0 became %v", err)
	}
	if err := resultError(-108); !errors.Is(err, rados.Blocklisted) {
		t.Errorf("108 became %v", err)
	}
}

func TestSeconds(t *testing.T) {
	for d, want := range map[time.Duration]uint32{0: 0, -1: 0, time.Millisecond: 1, time.Second: 1, 1001 * time.Millisecond: 2, time.Minute: 60} {
		if got := seconds(d); got != want {
			t.Errorf("%v is %d s, want %d", d, got, want)
		}
	}
}

func TestFullName(t *testing.T) {
	for in, want := range map[string]string{"": "client.admin", "admin": "client.admin", "client.rbd-mirror.a": "client.rbd-mirror.a"} {
		if got := fullName(in); got != want {
			t.Errorf("%q is %q, want %q", in, got, want)
		}
	}
}

func TestFlattenPayload(t *testing.T) {
	var f flatten
	defer f.reset()
	small, large := bytes.Repeat([]byte("s"), pinFrom-1), bytes.Repeat([]byte("l"), pinFrom)
	f.blob(small)
	if len(f.buf) != 8+len(small) || !bytes.Equal(f.buf[8:], small) || f.pinned {
		t.Error("a small payload is not copied in")
	}
	at := len(f.buf)
	f.blob(large)
	n, address := binary.LittleEndian.Uint64(f.buf[at:]), binary.LittleEndian.Uint64(f.buf[at+8:])
	if len(f.buf) != at+16 || n != byAddress|uint64(len(large)) || address != uint64(uintptr(unsafe.Pointer(&large[0]))) || !f.pinned {
		t.Error("a large payload is not passed by address")
	}
	f.unpin()
	if f.pinned {
		t.Error("still pinned")
	}
}

func TestFlattenUnknownStep(t *testing.T) {
	var f flatten
	if err := f.write(&rados.WriteOp{Steps: []rados.WriteStep{{Kind: 200}}}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("unknown write step: %v", err)
	}
	if err := f.read(&rados.ReadOp{Steps: []*rados.ReadStep{{Kind: 200}}}); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("unknown read step: %v", err)
	}
}
