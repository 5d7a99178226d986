package rbd

import (
	"errors"
	"testing"

	"pgregory.net/rapid"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// TestObjectMapAgainstModel compares the bit vector with a plain slice.
func TestObjectMapAgainstModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m, model := &ObjectMap{}, []ObjectState{}
		state := rapid.Map(rapid.Uint8Max(3), func(s uint8) ObjectState { return ObjectState(s) })
		t.Repeat(map[string]func(*rapid.T){
			"resize": func(t *rapid.T) {
				n, s := rapid.IntRange(0, 50).Draw(t, "n"), state.Draw(t, "state")
				m.Resize(uint64(n), s)
				for len(model) < n {
					model = append(model, s)
				}
				model = model[:n]
			},
			"update": func(t *rapid.T) {
				from := rapid.IntRange(0, len(model)).Draw(t, "from")
				to := rapid.IntRange(from, len(model)).Draw(t, "to")
				s, current := state.Draw(t, "state"), rapid.Ptr(state, true).Draw(t, "current")
				m.Update(uint64(from), uint64(to), s, current)
				for i := from; i < to; i++ {
					was := model[i]
					if current == nil || was == *current || *current == ObjectExists && was == ObjectExistsClean {
						model[i] = s
					}
				}
			},
			"snap add": func(t *rapid.T) {
				m.SnapAdd()
				for i, s := range model {
					if s == ObjectExists {
						model[i] = ObjectExistsClean
					}
				}
			},
			"": func(t *rapid.T) {
				if m.Size() != uint64(len(model)) {
					t.Fatalf("%d objects, want %d", m.Size(), len(model))
				}
				for i, want := range model {
					if got := m.At(uint64(i)); got != want {
						t.Fatalf("object %d is %v, want %v", i, got, want)
					}
				}
			},
		})
	})
}

// TestObjectMapSnapRemove follows two snapshots: what was written between them stays
// dirty after the first one is gone.
func TestObjectMapSnapRemove(t *testing.T) {
	newer, removed := NewObjectMap(4), NewObjectMap(3)
	for i := range uint64(4) {
		newer.Set(i, ObjectExistsClean)
	}
	removed.Set(0, ObjectExists)
	removed.Set(1, ObjectExistsClean)
	newer.SnapRemove(removed)
	for i, want := range []ObjectState{ObjectExists, ObjectExistsClean, ObjectExistsClean, ObjectExists} {
		if got := newer.At(uint64(i)); got != want {
			t.Errorf("object %d is %v, want %v", i, got, want)
		}
	}
}

// TestObjectMapChecksums flips every bit of a map of several blocks: none passes.
func TestObjectMapChecksums(t *testing.T) {
	m := NewObjectMap(2*objectMapBlock*4 + 9)
	for i := uint64(0); i < m.Size(); i += 3 {
		m.Set(i, ObjectState(i%4))
	}
	var e encoding.Encoder
	m.Encode(&e)
	b := e.Bytes()
	if _, err := DecodeObjectMap(b); err != nil {
		t.Fatal(err)
	}
	for at := range b {
		b[at] ^= 0x10
		_, err := DecodeObjectMap(b)
		var corrupt *encoding.CorruptError
		if !errors.As(err, &corrupt) {
			t.Fatalf("byte %d of %d damaged: %v", at, len(b), err)
		}
		b[at] ^= 0x10
	}
}

// TestObjectMapOfManyObjects: a header that claims too many allocates nothing.
func TestObjectMapOfManyObjects(t *testing.T) {
	for _, n := range []uint64{MaxObjects + 1, 1 << 40, ^uint64(0)} {
		var e, header encoding.Encoder
		header.Struct(1, 1, func(h *encoding.Encoder) { h.U64(n) })
		e.Blob(header.Bytes())
		if _, err := DecodeObjectMap(e.Bytes()); err == nil {
			t.Errorf("%d objects were accepted", n)
		}
	}
}

func TestObjectMapBeyondItsEndPanics(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	NewObjectMap(5).Set(5, ObjectExists)
}
