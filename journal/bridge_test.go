package journal

import (
	"bytes"
	"fmt"
	"testing"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// A client that stands behind damaged entries goes on from there: a re-sync mends what damage in a journal stopped.
// What is damaged and not known to be behind the client stops it.
func TestTailerGoesOnBehindDamageThatIsCommitted(t *testing.T) {
	size := wire.Entry{Payload: []byte("payload")}.Size()
	flip := func(entry int) func(b []byte) []byte { // the entry-th of the object
		return func(b []byte) []byte { b[entry*size+wire.EntryOverhead] ^= 1; return b }
	}
	// It looks like the entry that is due, within the bytes that a guest wrote.
	lookalike := wire.Marshal(wire.Entry{TID: 4, Payload: []byte("not this one")})
	for _, c := range []struct {
		name      string
		committed wire.ObjectSetPosition
		damage    func(b []byte) []byte // object 0 has entries 0, 2, 4, 6 of tag 0
		want      string                // entries
		bridged   string
		err       bool
	}{
		{
			name: "behind the position", committed: wire.ObjectSetPosition{{Object: 1, Entry: 3}, {Entry: 2}},
			damage: flip(1), want: "[4 5 6 7]", bridged: fmt.Sprintf("%d-%d before 4", size, 2*size),
		},
		{
			name: "behind the position, several", committed: wire.ObjectSetPosition{{Object: 1, Entry: 3}, {Entry: 2}},
			damage: func(b []byte) []byte { return flip(0)(flip(1)(b)) }, want: "[4 5 6 7]", bridged: fmt.Sprintf("0-%d before 4", 2*size),
		},
		{
			name: "due", committed: wire.ObjectSetPosition{{Object: 1, Entry: 3}, {Entry: 2}},
			damage: flip(2), want: "[]", err: true,
		},
		{
			name: "due, and another behind the position", committed: wire.ObjectSetPosition{{Object: 1, Entry: 3}, {Entry: 2}},
			damage: func(b []byte) []byte { return flip(1)(flip(2)(b)) }, want: "[]", err: true,
		},
		{
			name: "nothing committed", damage: flip(0), want: "[]", err: true,
		},
		{
			name: "bytes that look like the entry that is due", committed: wire.ObjectSetPosition{{Object: 1, Entry: 3}, {Entry: 2}},
			damage: func(b []byte) []byte {
				big := wire.Marshal(wire.Entry{TID: 2, Payload: bytes.Join([][]byte{lookalike, []byte("and more")}, nil)})
				big[wire.EntryOverhead+len(lookalike)] ^= 1
				return append(bytes.Clone(b[:size]), big...)
			}, want: "[]", err: true,
		},
		{
			name: "an older session's, cut off, with the next one's entries behind it", committed: wire.ObjectSetPosition{{Object: 1, Entry: 3}, {Entry: 2}},
			damage: func(b []byte) []byte {
				torn := wire.Marshal(wire.Entry{Tag: 0, TID: 2, Payload: bytes.Repeat([]byte("x"), 2*size)})[:size]
				return bytes.Join([][]byte{b[:size], torn, b[2*size:]}, nil)
			}, want: "[4 5 6 7]", bridged: fmt.Sprintf("%d-%d before 4", size, 2*size),
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			tt := newTailTest(t, TailConfig{})
			tt.entries(0, 8)
			tt.raw(0, c.damage)
			tt.io.change(func(h *fakeHeader) { h.clients["peer"].CommitPosition = c.committed })
			tail, err := NewTailer(t.Context(), tt.j, TailConfig{ClientID: "peer"})
			if err != nil {
				t.Fatal(err)
			}
			defer tail.Close()
			tt.tail.Close()
			tt.tail = tail
			var (
				tids    = []wire.EntryTID{}
				bridged string
			)
			for {
				b, err := tail.Next(t.Context(), 1<<20)
				for _, e := range b.Entries {
					tids = append(tids, e.Position.Entry)
				}
				for _, d := range b.Bridged {
					bridged += fmt.Sprintf("%d-%d before %d", d.From, d.To, d.Before.Entry)
				}
				if (err != nil) != c.err && (err != nil || b.CaughtUp) {
					t.Fatal(err)
				}
				if err != nil || b.CaughtUp {
					break
				}
			}
			if fmt.Sprint(tids) != c.want || bridged != c.bridged {
				t.Errorf("entries %v, bridged %q, want %s and %q", tids, bridged, c.want, c.bridged)
			}
			if held := tail.Held(); c.bridged != "" && held > 1<<20 {
				t.Errorf("%d bytes are held in the end", held)
			}
		})
	}
}
