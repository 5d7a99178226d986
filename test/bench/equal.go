package bench

import (
	"bytes"
	"crypto/md5"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"
)

// assertEqual fails the turn unless the images and their snapshots are the same on both sites.
func (p *Place) assertEqual(volumes ...*Volume) {
	p.r.Helper()
	p.r.must(parallel(len(volumes), 4, func(n int) error {
		err := p.compare(volumes[n])
		// rbd-mirror removes its snapshots a while after it has said that a copy is complete; an open that falls together with that
		// does not find the image.
		for range 20 {
			if !errors.Is(err, rbd.ErrNotFound) {
				break
			}
			time.Sleep(500 * time.Millisecond)
			err = p.compare(volumes[n])
		}
		return err
	}))
}

// compare says whether an image and its snapshots are the same on both sites.
func (p *Place) compare(v *Volume) error {
	snaps, err := snapshots(p.here, v.name)
	if err != nil {
		return fmt.Errorf("snapshots of %s: %w", v.name, err)
	}
	for _, snap := range append(snaps, rbd.NoSnapshot) {
		want, err := digest(p.here, v.name, snap)
		if err != nil {
			return fmt.Errorf("%s@%s on the primary: %w", v.name, snap, err)
		}
		got, err := digest(p.there, v.name, snap)
		if err != nil {
			return fmt.Errorf("%s@%s on the secondary: %w", v.name, snap, err)
		}
		if want != got {
			return fmt.Errorf("%s@%s differs between the sites", v.name, snap)
		}
	}
	return nil
}

// snapshots are the names of an image's snapshots, the mirroring's own apart.
func snapshots(ioctx *rados.IOContext, name string) (names []string, err error) {
	image, err := rbd.OpenImageReadOnly(ioctx, name, rbd.NoSnapshot)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	all, err := image.GetSnapshotNames()
	for _, s := range all {
		if !strings.HasPrefix(s.Name, ".rbd-mirror.") {
			names = append(names, s.Name)
		}
	}
	return names, err
}

// assertSameObjects is assertEqual for an image that is too large to be read as a whole: it compares the data objects that
// there are, on either site. What is missing, or behind an object's end, counts as zeros.
func (p *Place) assertSameObjects(v *Volume) {
	p.r.Helper()
	numbers := map[string]bool{}
	for _, site := range []struct {
		io *rados.IOContext
		id string
	}{{p.here, v.id}, {p.there, v.copy}} {
		prefix := "rbd_data." + site.id + "."
		p.r.must(site.io.ListObjects(func(oid string) {
			if number, ok := strings.CutPrefix(oid, prefix); ok {
				numbers[number] = true
			}
		}))
	}
	all := slices.Collect(maps.Keys(numbers))
	p.r.must(parallel(len(all), 4, func(n int) error {
		want, err := object(p.here, "rbd_data."+v.id+"."+all[n], 1<<v.order)
		if err != nil {
			return err
		}
		got, err := object(p.there, "rbd_data."+v.copy+"."+all[n], 1<<v.order)
		if err == nil && !bytes.Equal(want, got) {
			err = fmt.Errorf("object %s of %s differs between the sites", all[n], v.name)
		}
		return err
	}))
}

// object reads an object as an image shows it: missing ones, and what is behind an end, are zeros.
func object(ioctx *rados.IOContext, oid string, size int) ([]byte, error) {
	b := make([]byte, size)
	_, err := ioctx.Read(oid, b, 0)
	if errors.Is(err, rados.ErrNotFound) {
		err = nil
	}
	return b, err
}

// content is an image's length and a hash of its bytes.
type content struct {
	size uint64
	sum  [md5.Size]byte
}

// digest reads an image, or a snapshot of it.
func digest(ioctx *rados.IOContext, name, snap string) (c content, err error) {
	image, err := rbd.OpenImageReadOnly(ioctx, name, snap)
	if err != nil {
		return c, err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	if c.size, err = image.GetSize(); err != nil {
		return c, err
	}
	sum, buffer := md5.New(), make([]byte, 4<<20)
	for at := uint64(0); at < c.size; at += uint64(len(buffer)) {
		part := buffer[:min(uint64(len(buffer)), c.size-at)]
		if _, err := image.ReadAt(part, int64(at)); err != nil {
			return c, err
		}
		sum.Write(part)
	}
	sum.Sum(c.sum[:0])
	return c, nil
}
