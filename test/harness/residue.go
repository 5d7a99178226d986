package harness

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// What a primary's client leaves behind that died while it appended to the journal. It appends to the objects of the active
// set side by side, so the entries behind one that never came may be there; within an object they are in order.

// Residue appends to the journal what was under way, behind its newest entry: entries number missing+1 to missing+entries
// (counted from the next one that is due) as if number missing had never come. None of them was acknowledged, so none of
// their writes is in the image. With torn the last of them is cut in half. The image must not be open for writing.
func (i *Image) Residue(t testing.TB, missing, entries int, torn bool) (where []PlacedEntry) {
	t.Helper()
	j := i.JournalOn(t, i.Primary())
	newest, place := i.newest(t, j)
	for n := range entries {
		entry := journal.Entry{Tag: newest.Tag, TID: newest.TID + 1 + journal.EntryTID(missing+n)}
		data := make([]byte, 4096)
		for b := range data {
			data[b] = 0xee
		}
		entry.Payload = journal.Marshal(journal.EventEntry{
			Event: journal.AioWrite{Offset: uint64(n) * 4096, Length: 4096, Data: data}, Timestamp: time.Now(),
		})
		raw := journal.Marshal(entry)
		if torn && n == entries-1 {
			raw = raw[:len(raw)/2]
		}
		object := place(uint64(entry.TID))
		before := i.TryObject(t, i.Primary(), object)
		i.WriteObject(t, i.Primary(), object, append(before, raw...))
		where = append(where, PlacedEntry{entry, object, len(before), len(raw)})
	}
	return where
}

// newest is the journal's newest entry, and the names of the active set's objects by entry.
func (i *Image) newest(t testing.TB, j Journal) (newest journal.Entry, place func(entry uint64) string) {
	t.Helper()
	pool := PoolID(t, i.Primary(), i.Pool.Name)
	place = func(entry uint64) string {
		return journal.DataObject(pool, j.ID, journal.ObjectNumber(j.ActiveSet*j.SplayWidth+entry%j.SplayWidth))
	}
	found := false
	for offset := range j.SplayWidth {
		for _, e := range i.Entries(t, place(offset)) {
			if !found || e.Tag > newest.Tag || e.Tag == newest.Tag && e.TID > newest.TID {
				newest, found = e.Entry, true
			}
		}
	}
	if !found {
		t.Fatalf("%s: the active set %d has no entry", i.Spec(), j.ActiveSet)
	}
	return newest, place
}

// ClientRecord keeps the journal's record of the mirror as it is on the primary now. The function that it answers puts it
// back: the mirror then stands where it stood.
func (i *Image) ClientRecord(t testing.TB) (restore func()) {
	t.Helper()
	j := i.JournalOn(t, i.Primary())
	file := filepath.Join(t.TempDir(), "client")
	at := []string{"journal." + j.ID, "client_" + j.MirrorID()}
	Run(t, i.Primary(), "rados", append(append(i.Pool.place(), "getomapval"), append(at, file)...)...)
	return func() {
		t.Helper()
		Run(t, i.Primary(), "rados", append(append(i.Pool.place(), "setomapval"), append(at, "--input-file", file)...)...)
	}
}
