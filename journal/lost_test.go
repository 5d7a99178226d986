package journal

import (
	"errors"
	"strings"
	"testing"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// What the primary has committed was written. Where it is not there, or not whole, the
// tailer says so: it neither waits for ever nor, with a newer tag, leaves it out as a hole.
func TestTailerMissesWhatThePrimaryCommitted(t *testing.T) {
	commit := func(h *fakeHeader) {
		h.clients[wire.MasterClientID].CommitPosition = wire.ObjectSetPosition{{Object: 0, Entry: 2}, {Object: 1, Entry: 1}}
	}
	for _, c := range []struct {
		name  string
		tail  func(b []byte) []byte // of object 0, which holds entries 0 and 2
		newer bool
		want  string
	}{
		{"cut short", func(b []byte) []byte { return b[:len(b)-3] }, false, "ends within entry 2 of tag 0"},
		{"missing", func(b []byte) []byte { return b[:len(b)/2] }, false, "entry 2 of tag 0 is missing"},
		{"missing, with a newer tag", func(b []byte) []byte { return b[:len(b)/2] }, true, "entry 2 of tag 0 is missing"},
	} {
		t.Run(c.name, func(t *testing.T) {
			tt := newTailTest(t, TailConfig{})
			tt.entries(0, 3)
			tt.raw(0, c.tail)
			tt.want(2) // not committed by the primary: still to come
			tt.io.change(commit)
			if c.newer {
				tt.io.change(func(h *fakeHeader) { h.tags = append(h.tags, wire.Tag{TID: 1}) })
			}
			tt.tail.Wake()
			_, _, err := tt.next()
			var corrupt *CorruptError
			if !errors.As(err, &corrupt) || corrupt.Object != "journal_data.7.img.0" || !strings.Contains(err.Error(), c.want) {
				t.Fatal(err)
			}
		})
	}
}

// With the primary's position read before the object was, nothing is missing.
func TestTailerReadsAgainBeforeItMissesAnything(t *testing.T) {
	tt := newTailTest(t, TailConfig{})
	tt.entries(0, 1)
	tt.want(1)
	tt.entries(1, 1)
	tt.io.change(func(h *fakeHeader) {
		h.clients[wire.MasterClientID].CommitPosition = wire.ObjectSetPosition{{Object: 1, Entry: 1}}
	})
	tt.tail.Wake()
	tt.want(1)
}
