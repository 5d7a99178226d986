package random

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ceph/go-ceph/rbd"

	"github.com/rbdwarden/rbdwarden/test/harness"
)

// checkLeftovers waits until each object of the pools belongs to an image that is there, and no sync point is left.
func (r *Run) checkLeftovers() {
	t := r.witness("run")
	for place := range r.places {
		for _, s := range r.sites {
			harness.Eventually(t, settling, func() string {
				why, err := s.leftovers(place)
				if err != nil {
					return err.Error()
				}
				return why
			})
		}
	}
}

// leftovers names what is in a place without belonging to an image or to one in the trash.
func (s *Site) leftovers(place int) (string, error) {
	ids, err := s.imageIDs(place)
	if err != nil {
		return "", err
	}
	iter, err := s.ioctx[place].Iter()
	if err != nil {
		return "", err
	}
	defer iter.Close()
	var left []string
	for iter.Next() {
		name := iter.Value()
		if id, ok := owner(name); !ok || slices.Contains(ids, id) {
			continue
		}
		// Listed, too, while only snapshots of it are left that the OSDs have yet to trim.
		if _, err := s.ioctx[place].Stat(name); err == nil {
			left = append(left, name)
		}
	}
	if err := iter.Err(); err != nil {
		return "", err
	}
	if len(left) > 0 {
		return fmt.Sprintf("%s has in place %d %d objects of no image: %v", s, place, len(left), left[:min(len(left), 5)]), nil
	}
	return s.syncPoints(place)
}

// imageIDs lists the ids of the images and of those in the trash.
func (s *Site) imageIDs(place int) ([]string, error) {
	names, err := rbd.GetImageNames(s.ioctx[place])
	if err != nil {
		return nil, err
	}
	var ids []string
	for _, name := range names {
		var id string
		err := s.with(place, name, rbd.NoSnapshot, func(image *rbd.Image) (err error) {
			id, err = image.GetId()
			return err
		})
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	trash, err := rbd.GetTrashList(s.ioctx[place])
	for _, t := range trash {
		ids = append(ids, t.Id)
	}
	return ids, err
}

// owner is the id of the image that an object is part of, by its name.
func owner(object string) (string, bool) {
	for _, prefix := range []string{"rbd_header.", "rbd_object_map.", "rbd_data.", "journal.", "journal_data."} {
		rest, ok := strings.CutPrefix(object, prefix)
		if !ok {
			continue
		}
		if prefix == "journal_data." { // the pool's number comes first
			_, rest, _ = strings.Cut(rest, ".")
		}
		id, _, _ := strings.Cut(rest, ".")
		return id, true
	}
	return "", false
}

// syncPoints names snapshots of the mirroring's own that are left.
func (s *Site) syncPoints(place int) (string, error) {
	names, err := rbd.GetImageNames(s.ioctx[place])
	if err != nil {
		return "", err
	}
	for _, name := range names {
		var snaps []rbd.SnapInfo
		err := s.with(place, name, rbd.NoSnapshot, func(image *rbd.Image) (err error) {
			snaps, err = image.GetSnapshotNames()
			return err
		})
		if err != nil {
			return "", err
		}
		for _, snap := range snaps {
			if strings.HasPrefix(snap.Name, ".rbd-mirror.") {
				return fmt.Sprintf("%s on %s has the sync point %s", name, s, snap.Name), nil
			}
		}
	}
	return "", nil
}

// checkLocks fails the test for a lock on an image, its map or the leadership when nobody is there to hold it.
func (r *Run) checkLocks() {
	t := r.witness("run")
	for place := range r.places {
		for _, s := range r.sites {
			ids, err := s.imageIDs(place)
			if err != nil {
				t.Fatal(err)
			}
			objects := []string{"rbd_mirror_leader"}
			for _, id := range ids {
				objects = append(objects, "rbd_header."+id, "rbd_object_map."+id)
			}
			for _, object := range objects {
				info, err := s.ioctx[place].ListLockers(object, "rbd_lock")
				if err == nil && info.NumLockers > 0 {
					t.Errorf("%s on %s is locked: %+v", object, s, info)
				}
			}
		}
	}
}

// blocklists are the addresses that each site keeps out.
func (r *Run) blocklists() [2]map[string]bool {
	var lists [2]map[string]bool
	for i, s := range r.sites {
		lists[i] = map[string]bool{}
		for line := range strings.Lines(harness.Run(r.t, s.Cluster, "ceph", "osd", "blocklist", "ls")) {
			if address, _, ok := strings.Cut(line, " "); ok {
				lists[i][address] = true
			}
		}
	}
	return lists
}

// checkBlocklists fails the test for addresses that were added since.
func (r *Run) checkBlocklists(before [2]map[string]bool) {
	for i, now := range r.blocklists() {
		for address := range now {
			if !before[i][address] {
				r.witness("run").Errorf("%s blocklisted %s though nothing failed", r.sites[i], address)
			}
		}
	}
}
