package harness

import (
	"errors"
	"strings"
	"testing"

	"github.com/ceph/go-ceph/rados"
)

// Versions are the versions of objects, by name. Whatever changes an object gives it a higher one, be it with the same
// bytes that it had.
type Versions map[string]uint64

// CopyVersions reads the versions of the data and the object maps of a load's images on the secondary.
func (l *Load) CopyVersions(t testing.TB) Versions {
	t.Helper()
	ioctx := l.copies(t)
	found := Versions{}
	names, err := ioctx.Iter()
	if err != nil {
		t.Fatal(err)
	}
	defer names.Close()
	for names.Next() {
		name := names.Value()
		if !strings.HasPrefix(name, "rbd_data.") && !strings.HasPrefix(name, "rbd_object_map.") {
			continue
		}
		if _, err := ioctx.Stat(name); errors.Is(err, rados.ErrNotFound) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		if found[name], err = ioctx.GetLastVersion(); err != nil {
			t.Fatal(err)
		}
	}
	if err := names.Err(); err != nil {
		t.Fatal(err)
	}
	return found
}

// Changed names the objects of which there is another version later, or only then or only before.
func (v Versions) Changed(later Versions) (names []string) {
	for name, version := range v {
		if later[name] != version {
			names = append(names, name)
		}
	}
	for name := range later {
		if _, was := v[name]; !was {
			names = append(names, name)
		}
	}
	return names
}
