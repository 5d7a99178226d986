package harness

import (
	"errors"
	"fmt"
	"testing"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// Injury is a byte of a journal's entry that was flipped.
type Injury struct {
	// Object and Offset are where the entry begins.
	Object string
	Offset int

	ioctx *rados.IOContext
	at    uint64
}

// entryPayload is where in an entry its payload begins, in bytes.
const entryPayload = 29

// DamageJournal flips a byte of an entry that the mirror of an image has not committed, with another one before it and
// one behind it, as soon as there are such. The mirror must have been stopped; writing may go on, for data objects of
// journals only grow.
func DamageJournal(ioctx *rados.IOContext, id string) (*Injury, error) {
	_, mirror, err := positions(ioctx, id)
	if err != nil {
		return nil, err
	}
	if !mirror.Any {
		return nil, errNothingAhead // the first copy is yet to be made
	}
	splay, err := splayWidth(ioctx, id)
	if err != nil {
		return nil, err
	}
	first := mirror.Object / splay * splay
	for object := first; object < first+2*splay; object++ {
		name := journal.DataObject(ioctx.GetPoolID(), id, journal.ObjectNumber(object))
		data, err := readAll(ioctx, name)
		if errors.Is(err, rados.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var ahead []int
		for at := 0; at < len(data); {
			entry, size, err := journal.DecodeEntry(data[at:])
			if err != nil {
				break // padding, or what is being written
			}
			if mirror.Before(Position{Tag: uint64(entry.Tag), Entry: uint64(entry.TID), Any: true}) {
				ahead = append(ahead, at)
			}
			at += size
		}
		if len(ahead) < 3 {
			continue
		}
		i := &Injury{Object: name, Offset: ahead[1], ioctx: ioctx, at: uint64(ahead[1] + entryPayload)}
		return i, i.flip()
	}
	return nil, errNothingAhead
}

// errNothingAhead says that the mirror has committed nearly everything.
var errNothingAhead = errors.New("no object has three entries ahead of the mirror")

// Repair flips the byte back. An object that is gone was of no use to anybody.
func (i *Injury) Repair() error {
	if err := i.flip(); !errors.Is(err, rados.ErrNotFound) {
		return err
	}
	return nil
}

func (i *Injury) flip() error {
	one := make([]byte, 1)
	if n, err := i.ioctx.Read(i.Object, one, i.at); err != nil || n != 1 {
		return fmt.Errorf("read byte %d of %s: %d bytes, %w", i.at, i.Object, n, err)
	}
	one[0] ^= 0x04
	return i.ioctx.Write(i.Object, one, i.at)
}

// readAll reads a whole object.
func readAll(ioctx *rados.IOContext, name string) ([]byte, error) {
	stat, err := ioctx.Stat(name)
	if err != nil {
		return nil, err
	}
	data := make([]byte, stat.Size)
	n, err := ioctx.Read(name, data, 0)
	return data[:max(n, 0)], err
}

// splayWidth is how many data objects a journal is written to at a time.
func splayWidth(ioctx *rados.IOContext, id string) (uint64, error) {
	values, err := ioctx.GetOmapValues(journal.HeaderObject(id), "", "splay_width", 1)
	if err != nil {
		return 0, err
	}
	d := encoding.NewDecoder("splay_width", values["splay_width"])
	width := d.U8()
	return uint64(width), d.Err()
}

// Damage damages the journal of a load's image, once enough is ahead of the mirror.
func (g *Guest) Damage(t testing.TB) (injury *Injury) {
	t.Helper()
	Eventually(t, Patience, func() string {
		var err error
		if injury, err = DamageJournal(g.ioctx, g.ID); err != nil && !errors.Is(err, errNothingAhead) {
			t.Fatal(err)
		} else if err != nil {
			return err.Error()
		}
		return ""
	})
	return injury
}
