package journal

import (
	"bytes"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

func everyEvent() []Event {
	group := SnapshotNamespace{Type: GroupSnapshot, Raw: []byte{1, 2, 3}}
	return []Event{
		AioDiscard{Offset: 1, Length: 2, Granularity: 3},
		AioWrite{Offset: 1, Length: 4, Data: []byte("data")},
		AioFlush{},
		OpFinish{Op: 5, Result: -2},
		SnapCreate{Op: 5, Namespace: group, Name: "s"},
		SnapRemove{Op: 5, Name: "s"},
		SnapRename{Op: 5, SnapID: 6, OldName: "s", NewName: "t"},
		SnapProtect{Op: 5, Name: "s"},
		SnapUnprotect{Op: 5, Name: "s"},
		SnapRollback{Op: 5, Name: "s"},
		Rename{Op: 5, Name: "i"},
		Resize{Op: 5, Size: 1 << 40},
		Flatten{Op: 5},
		DemotePromote{},
		SnapLimit{Op: 5, Limit: 9},
		UpdateFeatures{Op: 5, Features: 0x40, Enabled: true},
		MetadataSet{Op: 5, Key: "k", Value: "v"},
		MetadataRemove{Op: 5, Key: "k"},
		AioWriteSame{Offset: 1, Length: 8, Data: []byte("data")},
		AioCompareAndWrite{Offset: 1, Length: 4, CompareData: []byte("old!"), WriteData: []byte("new!")},
		Unknown{EventType: 20, Raw: []byte{9}},
	}
}

func TestEveryEventComesBack(t *testing.T) {
	at := time.Unix(1700000000, 123456789)
	for i, event := range everyEvent() {
		if got := event.Type(); got != EventType(i) {
			t.Errorf("%T has type %v, want %d", event, got, i)
		}
		want := EventEntry{Event: event, Timestamp: at}
		got, err := DecodeEvent(Marshal(want))
		if err != nil {
			t.Errorf("%v: %v", event.Type(), err)
		} else if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%v: %s", event.Type(), d)
		}
	}
}

func TestEventOfEveryPrefixIsAnError(t *testing.T) {
	for _, event := range everyEvent() {
		whole := Marshal(EventEntry{Event: event})
		for n := range whole {
			if _, err := DecodeEvent(whole[:n]); err == nil {
				t.Errorf("%v: %d of %d bytes decode", event.Type(), n, len(whole))
			}
		}
	}
}

// encodeOld encodes an event as an older release did.
func encodeOld(version uint8, t EventType, fields func(e *encoding.Encoder)) []byte {
	var e encoding.Encoder
	e.Struct(version, 1, func(e *encoding.Encoder) {
		e.U32(uint32(t))
		fields(e)
	})
	if version >= 4 {
		e.Struct(1, 1, func(e *encoding.Encoder) { e.U64(0) })
	}
	return e.Bytes()
}

func TestEventsOfOlderVersions(t *testing.T) {
	snap := func(namespace bool) func(e *encoding.Encoder) {
		return func(e *encoding.Encoder) {
			e.U64(5)
			e.String("s")
			if namespace {
				SnapshotNamespace{Type: TrashSnapshot, Raw: []byte{1}}.Encode(e)
			}
		}
	}
	discard := func(e *encoding.Encoder) { e.U64(1); e.U64(2) }
	trash := SnapshotNamespace{Type: TrashSnapshot, Raw: []byte{1}}
	for _, c := range []struct {
		name string
		b    []byte
		want Event
	}{
		{"discard 1", encodeOld(1, TypeAioDiscard, discard), AioDiscard{Offset: 1, Length: 2}},
		{"discard 4, whole", encodeOld(4, TypeAioDiscard, func(e *encoding.Encoder) { discard(e); e.Bool(false) }),
			AioDiscard{Offset: 1, Length: 2}},
		{"discard 4, skip partial", encodeOld(4, TypeAioDiscard, func(e *encoding.Encoder) { discard(e); e.Bool(true) }),
			AioDiscard{Offset: 1, Length: 2, Granularity: math.MaxUint32}},
		{"snap create 2", encodeOld(2, TypeSnapCreate, snap(false)), SnapCreate{Op: 5, Name: "s"}},
		{"snap create 3", encodeOld(3, TypeSnapCreate, snap(true)), SnapCreate{Op: 5, Name: "s", Namespace: trash}},
		{"snap remove 3", encodeOld(3, TypeSnapRemove, snap(false)), SnapRemove{Op: 5, Name: "s"}},
		{"snap remove 4", encodeOld(4, TypeSnapRemove, snap(true)), SnapRemove{Op: 5, Name: "s", Namespace: trash}},
		{"snap rename 1", encodeOld(1, TypeSnapRename, func(e *encoding.Encoder) { e.U64(5); e.String("t"); e.U64(6) }),
			SnapRename{Op: 5, SnapID: 6, NewName: "t"}},
	} {
		got, err := DecodeEvent(c.b)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
		} else if d := cmp.Diff(c.want, got.Event); d != "" {
			t.Errorf("%s: %s", c.name, d)
		}
	}
}

func TestNewerEventKeepsItsKnownFields(t *testing.T) {
	var e encoding.Encoder
	e.Struct(6, 1, func(e *encoding.Encoder) {
		e.U32(uint32(TypeResize))
		e.U64(5)
		e.U64(4096)
		e.U32(99) // a field of the future
	})
	e.Struct(2, 1, func(e *encoding.Encoder) { e.Time(time.Unix(1, 1)); e.U8(7) })
	got, err := DecodeEvent(e.Bytes())
	if err != nil || got.Event != (Resize{Op: 5, Size: 4096}) || !got.Timestamp.Equal(time.Unix(1, 1)) {
		t.Fatalf("%+v, %v", got, err)
	}
}

func TestOpFinishWithTwoIDsIsCorrupt(t *testing.T) {
	b := Marshal(EventEntry{Event: OpFinish{Op: 5}})
	b = bytes.Replace(b, []byte{5, 0, 0, 0, 0, 0, 0, 0}, []byte{6, 0, 0, 0, 0, 0, 0, 0}, 1)
	if got, err := DecodeEvent(b); err == nil {
		t.Fatalf("decoded to %+v", got)
	}
}
