package journal

import (
	"bytes"
	"errors"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

func TestDecodeEntryOfEveryPrefix(t *testing.T) {
	whole := Marshal(Entry{Tag: 7, TID: 9, Payload: []byte("payload")})
	for n := range whole {
		_, _, err := DecodeEntry(whole[:n:n])
		var more NeedMore
		if !errors.As(err, &more) {
			t.Fatalf("%d bytes: %v, want NeedMore", n, err)
		}
		if more <= 0 || int(more) > len(whole)-n {
			t.Fatalf("%d of %d bytes: need %d more", n, len(whole), int(more))
		}
	}
	e, n, err := DecodeEntry(append(bytes.Clone(whole), 0xff))
	if err != nil || n != len(whole) || e.Tag != 7 || e.TID != 9 || string(e.Payload) != "payload" {
		t.Fatalf("got %+v, %d, %v", e, n, err)
	}
	if n != e.Size() {
		t.Fatalf("size %d, Size() %d", n, e.Size())
	}
}

func TestDecodeEntryFindsEveryFlippedBit(t *testing.T) {
	whole := Marshal(Entry{Tag: 7, TID: 9, Payload: []byte("payload")})
	for i := range 8 * len(whole) {
		b := bytes.Clone(whole)
		b[i/8] ^= 1 << (i % 8)
		_, _, err := DecodeEntry(b)
		var corrupt *encoding.CorruptError
		var more NeedMore
		// A longer length looks like an entry that is not complete yet.
		inLength := i/8 >= entryHeaderSize && i/8 < entryHeaderSize+4
		if !errors.As(err, &corrupt) && !(inLength && errors.As(err, &more)) {
			t.Fatalf("bit %d: %v", i, err)
		}
	}
}

func TestEntryPayloadIsNotCopied(t *testing.T) {
	b := Marshal(Entry{Payload: Marshal(EventEntry{Event: AioWrite{Length: 4, Data: []byte("data")}})})
	e, _, err := DecodeEntry(b)
	if err != nil {
		t.Fatal(err)
	}
	v, err := DecodeEvent(e.Payload)
	if err != nil {
		t.Fatal(err)
	}
	w := v.Event.(AioWrite)
	at := bytes.Index(b, []byte("data"))
	b[at] = 'D'
	if string(w.Data) != "Data" {
		t.Fatalf("data %q was copied", w.Data)
	}
	if cap(w.Data) != 4 {
		t.Fatalf("an append to the data would reach the next field: capacity %d", cap(w.Data))
	}
}

func TestPadding(t *testing.T) {
	zeros := make([]byte, 64)
	for _, c := range []struct {
		name   string
		b      []byte
		offset uint64
		n      int
		more   int
		bad    int // offset of the corrupt byte, 0 for none
	}{
		{name: "nothing", b: []byte{0x93}},
		{name: "up to the unit", b: append(bytes.Clone(zeros[:3]), 0x93), offset: 5, n: 3},
		{name: "several units", b: append(bytes.Clone(zeros[:19]), 0x93), offset: 5, n: 19},
		{name: "whole buffer", b: zeros, offset: 8, n: 64},
		{name: "cut off", b: zeros[:10], offset: 8, n: 8, more: 6},
		{name: "not only zeros", b: []byte{0, 0, 7, 0, 0, 0, 0, 0}, bad: 2},
		{name: "entry before the unit ends", b: append(bytes.Clone(zeros[:9]), 0x93), n: 8, more: 0, bad: 9},
	} {
		t.Run(c.name, func(t *testing.T) {
			n, err := Padding(c.b, c.offset)
			var more NeedMore
			var corrupt *encoding.CorruptError
			switch {
			case n != c.n:
				t.Fatalf("%d bytes, want %d", n, c.n)
			case c.more > 0:
				if !errors.As(err, &more) || int(more) != c.more {
					t.Fatalf("%v, want to need %d", err, c.more)
				}
			case c.bad > 0:
				if !errors.As(err, &corrupt) || corrupt.Offset != c.bad {
					t.Fatalf("%v, want corrupt at %d", err, c.bad)
				}
			case err != nil:
				t.Fatal(err)
			}
		})
	}
}
