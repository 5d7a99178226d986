package harness

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbdwarden/rbdwarden/lab"
)

// Witness knows from the OSD of the secondary alone who wrote to which copy: it reads the OSD's log of messages. It must
// be there before any mirroring daemon is.
type Witness struct {
	cluster *lab.Cluster

	mu    sync.Mutex
	file  *os.File
	at    int64
	log   *osdLog
	owned *Ownership
}

// NewWitness makes the OSD of a cluster log its messages, until the test ends. The test fails then if anything was
// written to an image by who was not its owner.
func NewWitness(t testing.TB, c *lab.Cluster) *Witness {
	t.Helper()
	w := &Witness{cluster: c, log: newOSDLog(), owned: newOwnership()}
	var err error
	if w.file, err = os.Open(filepath.Join(c.LogDir(), "osd.0.log")); err != nil {
		t.Fatal(err)
	}
	if w.at, err = w.file.Seek(0, io.SeekEnd); err != nil {
		t.Fatal(err)
	}
	w.set(t, "log_coarse_timestamps", "false")
	w.set(t, "debug_ms", "1")
	t.Cleanup(func() {
		defer w.file.Close()
		w.set(t, "debug_ms", "0")
		w.Assert(t)
	})
	return w
}

// set changes an option of the OSD.
func (w *Witness) set(t testing.TB, option, value string) {
	t.Helper()
	w.admin(t, map[string]any{"prefix": "config set", "var": option, "val": []string{value}})
}

func (w *Witness) admin(t testing.TB, command map[string]any) {
	t.Helper()
	// Not the test's context: that has ended when the test is cleaned up.
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := lab.Admin(ctx, filepath.Join(w.cluster.RunDir(), "ceph-osd.0.asok"), command); err != nil {
		t.Fatalf("%v: %v %s", command, err, out)
	}
}

// look takes in what the OSD has logged so far, and lets somebody ask.
func (w *Witness) look(t testing.TB, ask func(*Ownership)) {
	t.Helper()
	w.admin(t, map[string]any{"prefix": "log flush"})
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, err := w.file.Seek(w.at, io.SeekStart); err != nil {
		t.Fatal(err)
	}
	size, err := w.log.read(w.file, w.owned.take)
	if err != nil {
		t.Fatal(err)
	}
	w.at += size
	ask(w.owned)
}

// Assert fails the test if anything was written to an image so far by who was not its owner.
func (w *Witness) Assert(t testing.TB) {
	t.Helper()
	const most = 20
	w.look(t, func(o *Ownership) {
		for n, v := range o.Violations() {
			if n == most {
				t.Errorf("and %d more", len(o.Violations())-most)
				return
			}
			t.Error(v)
		}
	})
}

// Owners are those who have written to each copy of a load's images so far, by guest.
func (w *Witness) Owners(t testing.TB, l *Load) (owners [][]Tenure) {
	t.Helper()
	copies := l.copyIDs(t)
	pool := PoolID(t, w.cluster, l.Pool.Name)
	w.look(t, func(o *Ownership) {
		for _, g := range l.Guests {
			owners = append(owners, append([]Tenure(nil), o.Owners(pool, copies[g.Name])...))
		}
	})
	return owners
}

// Leaders are those who have written a pool's image map so far.
func (w *Witness) Leaders(t testing.TB, pool *Pool) (leaders []Tenure) {
	t.Helper()
	id := PoolID(t, w.cluster, pool.Name)
	w.look(t, func(o *Ownership) { leaders = append(leaders, o.Owners(id, Leadership)...) })
	return leaders
}

// copyIDs are the ids of the images on the secondary, by name.
func (l *Load) copyIDs(t testing.TB) map[string]string {
	t.Helper()
	ids := map[string]string{}
	// The keys "name_<name>" of rbd_directory have the id as a value: its length and its letters (src/cls/rbd/cls_rbd.cc).
	values, err := l.copies(t).GetAllOmapValues("rbd_directory", "", "name_", 256)
	if err != nil && !errors.Is(err, rados.ErrNotFound) { // there is none before there is an image
		t.Fatal(err)
	}
	for key, value := range values {
		if len(value) < 4 || len(value) != 4+int(binary.LittleEndian.Uint32(value)) {
			t.Fatalf("entry %s of the directory: %q", key, value)
		}
		ids[strings.TrimPrefix(key, "name_")] = string(value[4:])
	}
	return ids
}

// Moves counts how often each image was written to by another client than before, since a moment.
func Moves(owners []Tenure, since time.Time) (n int) {
	for i, t := range owners {
		if i > 0 && t.First.After(since) {
			n++
		}
	}
	return n
}
