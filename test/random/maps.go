package random

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// mapFault is how librbd tells of an object whose map is wrong: number, state in the map, state that it should have.
var mapFault = regexp.MustCompile(`\.([0-9a-f]{16}) marked as (\d), but should be (\d)`)

// checkMaps lets Ceph check the object maps of images that were promoted, snapshots included.
//
// A compare-and-write that found other contents leaves an object marked as changed since the newest snapshot, in librbd's own
// maps too: what the maps of the site that wrote has of that kind (noteMaps), a promoted replica may have.
func (r *Run) checkMaps(families []*Family) {
	r.eachMap(families, func(f *Family, d *Disk, snap string) {
		for _, fault := range f.checkMap(d, snap) {
			if !slices.Contains(d.faults[snap], fault) {
				f.t.Errorf("%s%s on %s: object map: %s", d, snap, f.At, fault)
			}
		}
	})
}

// noteMaps remembers what is wrong with librbd's own maps before a failover.
func (r *Run) noteMaps(families []*Family) {
	for _, f := range families {
		for _, d := range f.Disks {
			d.faults = map[string][]string{}
		}
	}
	r.eachMap(families, func(f *Family, d *Disk, snap string) { d.faults[snap] = f.checkMap(d, snap) })
}

// eachMap does something for each object map of families.
func (r *Run) eachMap(families []*Family, do func(*Family, *Disk, string)) {
	for _, f := range families {
		for _, d := range f.Disks {
			if d.Trashed || !d.ObjectMap {
				continue
			}
			do(f, d, "")
			for _, s := range d.Snaps {
				do(f, d, "@"+s.Name)
			}
		}
	}
}

// checkMap lets Ceph check an object map, and answers what it finds wrong. It then flags the map invalid, which is mended.
//
// A map that is made for an image that has data is flagged invalid on both sites, and a rebuild on one says nothing to the
// other: such a map is not checked.
func (f *Family) checkMap(d *Disk, snap string) []string {
	if info := f.rbd("info", "--format", "json", f.spec(d)+snap); strings.Contains(info, "object map invalid") {
		if !d.remapped {
			f.t.Errorf("%s%s on %s: %s", d, snap, f.At, info)
		}
		f.rbd("object-map", "rebuild", "--no-progress", f.spec(d)+snap)
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	said, err := f.At.Cluster.Command(ctx, "rbd", "object-map", "check", "--no-progress", f.spec(d)+snap).CombinedOutput()
	if err != nil {
		f.t.Fatalf("check the object map of %s%s: %v\n%s", d, snap, err, said)
	}
	var found []string
	for _, m := range mapFault.FindAllStringSubmatch(string(said), -1) {
		found = append(found, fmt.Sprintf("object %s marked as %s, but should be %s", m[1], m[2], m[3]))
	}
	if info := f.rbd("info", "--format", "json", f.spec(d)+snap); strings.Contains(info, "object map invalid") {
		if len(found) == 0 {
			f.t.Errorf("%s%s on %s: %s", d, snap, f.At, info)
		}
		f.rbd("object-map", "rebuild", "--no-progress", f.spec(d)+snap)
	}
	return found
}
