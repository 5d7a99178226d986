package harness

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbdwarden/rbdwarden/lab"
)

// reader asks librbd about one image without a program for each question.
type reader struct {
	image *Image
	conn  *rados.Conn
	ioctx *rados.IOContext
}

// open connects to a cluster for questions about the image.
func (i *Image) open(t testing.TB, c *lab.Cluster) *reader {
	t.Helper()
	r := &reader{image: i}
	var err error
	if r.conn, err = rados.NewConnWithUser("admin"); err != nil {
		t.Fatal(err)
	}
	if err := r.conn.ReadConfigFile(c.Conf()); err != nil {
		t.Fatal(err)
	}
	if err := r.conn.Connect(); err != nil {
		t.Fatal(err)
	}
	if r.ioctx, err = r.conn.OpenIOContext(i.Pool.Name); err != nil {
		t.Fatal(err)
	}
	return r
}

func (r *reader) close() {
	r.ioctx.Destroy()
	r.conn.Shutdown()
}

// with opens the head, or a snapshot if snap is not empty.
func (r *reader) with(t testing.TB, snap string, do func(d *disk) error) {
	t.Helper()
	d, err := openSnapshot(r.ioctx, r.image.Name, snap)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(do(d), d.close()); err != nil {
		t.Fatalf("%s@%s: %v", r.image.Spec(), snap, err)
	}
}

func (r *reader) features(t testing.TB) (mask uint64) {
	t.Helper()
	r.with(t, "", func(d *disk) (err error) { mask, err = d.features(); return err })
	return mask
}

func (r *reader) limit(t testing.TB) (limit uint64) {
	t.Helper()
	r.with(t, "", func(d *disk) (err error) { limit, err = d.limit(); return err })
	return limit
}

// difference compares the head or a snapshot with what it must be; empty if it is that.
func (r *reader) difference(t testing.TB, snap string, want []byte) (where int, what string) {
	t.Helper()
	r.with(t, snap, func(d *disk) error {
		size, err := d.size()
		if err != nil {
			return err
		}
		if size != uint64(len(want)) {
			what = fmt.Sprintf("%d bytes instead of %d", size, len(want))
			return nil
		}
		const block = 512
		got, first, last, blocks := make([]byte, size), -1, 0, 0
		for at := 0; at < len(got); at += 4 << 20 {
			if err := d.read(at, got[at:min(at+4<<20, len(got))]); err != nil {
				return err
			}
		}
		for at := 0; at < len(got); at += block {
			end := min(at+block, len(got))
			if bytes.Equal(got[at:end], want[at:end]) {
				continue
			}
			if first < 0 {
				first = at
			}
			last = end
			blocks++
		}
		if blocks > 0 {
			where = first
			what = fmt.Sprintf("%d blocks of %d bytes differ between %d and %d; the first begins %x, want %x",
				blocks, block, first, last, got[first:min(first+16, len(got))], want[first:min(first+16, len(want))])
		}
		return nil
	})
	return where, what
}

// MetadataOn reads the image's metadata on a cluster.
func (i *Image) MetadataOn(t testing.TB, c *lab.Cluster) map[string]string {
	t.Helper()
	pairs := map[string]string{}
	out := Run(t, c, "rbd", "image-meta", "list", "--format", "json", i.Spec())
	if out == "" {
		return pairs
	}
	if err := json.Unmarshal([]byte(out), &pairs); err != nil {
		t.Fatalf("%v in %q", err, out)
	}
	return pairs
}

// AssertSameRange fails the test unless a range of the head is the same on both clusters.
func (i *Image) AssertSameRange(t testing.TB, at uint64, size int) {
	t.Helper()
	var sides [2][]byte
	for n, c := range []*lab.Cluster{i.Primary(), i.Secondary()} {
		sides[n] = make([]byte, size)
		r := i.open(t, c)
		r.with(t, "", func(d *disk) error { return d.read(int(at), sides[n]) })
		r.close()
	}
	if !bytes.Equal(sides[0], sides[1]) {
		t.Errorf("%s differs between %d and %d", i.Spec(), at, at+uint64(size))
	}
}

// Snapshot takes a snapshot through the writer's own handle.
func (w *Writer) Snapshot(name string) {
	w.t.Helper()
	w.check(w.disk.snapCreate(name))
}

// RemoveSnapshot removes a snapshot through the writer's own handle.
func (w *Writer) RemoveSnapshot(name string) {
	w.t.Helper()
	w.check(w.disk.snapRemove(name))
}
