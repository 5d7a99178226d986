package harness

import (
	"bytes"
	"encoding/binary"
	"errors"
	"syscall"
)

// Turn does a round of compare-and-writes on sectors from the image's start: each sector holds the round's number before,
// and the next one's behind it. Two are done a sector: one that expects the next number, and fails; and one that expects
// this one's, and succeeds. Whoever does a round again, on sectors of a later one, finds that the first succeeds: the
// sector then holds what none ever should.
func (w *Writer) Turn(round uint64, sectors int) {
	w.t.Helper()
	never := stamp(^uint64(0))
	for n := range sectors {
		at := n * sector
		if round == 0 {
			w.check(w.disk.write(at, stamp(0)))
		}
		if err := w.disk.compareAndWrite(at, stamp(round+1), never); !errors.Is(err, syscall.EILSEQ) {
			w.t.Fatalf("compare-and-write in round %d on the contents of another: %v, want EILSEQ", round, err)
		}
		w.check(w.disk.compareAndWrite(at, stamp(round), stamp(round+1)))
		copy(w.Contents[at:], stamp(round+1))
	}
	w.Operations += 2 * sectors
}

// stamp is a sector full of a number.
func stamp(n uint64) []byte {
	return bytes.Repeat(binary.LittleEndian.AppendUint64(nil, n), sector/8)
}
