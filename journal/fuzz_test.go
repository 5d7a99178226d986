package journal

import (
	"os"
	"path/filepath"
	"testing"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// FuzzParseChunk: whatever lies in a data object, parsing takes it in order, and
// in pieces of any size it finds the same entries as at once.
func FuzzParseChunk(f *testing.F) {
	files, err := filepath.Glob("../ceph/journal/testdata/*/object.*")
	if err != nil || len(files) == 0 {
		f.Fatal(files, err)
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, uint16(100))
	}
	f.Add(append(make([]byte, 5), wire.Marshal(wire.Entry{})...), uint16(1))
	f.Fuzz(func(t *testing.T, b []byte, piece uint16) {
		const maxEntry = 1 << 16
		whole, err := parseChunk(b, 1, 0, maxEntry)
		if whole.parsed > len(b) || err == nil && whole.need == 0 && whole.parsed != len(b) {
			t.Fatalf("parsed %d of %d, need %d", whole.parsed, len(b), whole.need)
		}
		var n, at int
		for size := int(piece) + 1; at < len(b); {
			end := min(at+size, len(b))
			c, err := parseChunk(b[at:end], 1, uint64(at), maxEntry)
			for _, e := range c.entries {
				if n >= len(whole.entries) || e.Offset != whole.entries[n].Offset || e.Position != whole.entries[n].Position {
					t.Fatalf("entry %d is %+v in pieces", n, e.Position)
				}
				n++
			}
			at += c.parsed
			if err != nil || c.need > 0 && end == len(b) {
				break
			}
			size = max(int(piece)+1, c.need)
		}
		if n != len(whole.entries) || at != whole.parsed {
			t.Fatalf("%d entries and %d bytes in pieces, %d and %d at once", n, at, len(whole.entries), whole.parsed)
		}
	})
}
