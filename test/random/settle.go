package random

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// settling is how long the daemons have to bring both sites to the same once nothing is written any more.
const settling = 90 * time.Second

// settle waits until every image is mirrored to the last entry, and compares both sites with what must be there.
func (r *Run) settle() {
	r.t.Helper()
	r.log.Printf("run", "settle")
	began := time.Now()
	var wait sync.WaitGroup
	for _, f := range r.families {
		wait.Go(func() {
			for _, d := range f.Disks {
				f.await(d)
			}
			for _, d := range f.Disks {
				f.compare(d)
			}
		})
	}
	wait.Wait()
	for _, s := range r.sites {
		s.tracker.forget()
	}
	r.checkNames()
	r.log.Printf("run", "settled after %v", time.Since(began).Round(time.Millisecond))
	r.failNow()
}

// await waits until an image's other side has replayed everything and says so.
func (f *Family) await(d *Disk) {
	deadline := time.Now().Add(settling)
	for pause := 100 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		why := f.lacks(d)
		if why == "" {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%s: %s after %v", d, why, settling)
		}
		time.Sleep(pause)
	}
}

// lacks says what an image's other side still lacks.
func (f *Family) lacks(d *Disk) string {
	if d.Trashed || !d.Mirrored {
		if _, err := f.Other.look(d.Place, d.Name); d.Trashed || isNotFound(err) {
			return ""
		}
		return "is there still, though it is not mirrored"
	}
	here, err := f.At.look(d.Place, d.Name)
	if err != nil {
		return fmt.Sprintf("on %s: %v", f.At, err)
	}
	there, err := f.Other.look(d.Place, d.Name)
	if err != nil {
		return fmt.Sprintf("on %s: %v", f.Other, err)
	}
	if here.GlobalID != there.GlobalID || here.Mirror != "enabled" || there.Mirror != "enabled" {
		return fmt.Sprintf("mirroring is %s %s here and %s %s there", here.Mirror, here.GlobalID, there.Mirror, there.GlobalID)
	}
	if why := f.behind(d, here.ID); why != "" {
		return why
	}
	// One that its owner made late, for a worker that had died, goes a moment after it was seen in the journal.
	for _, seen := range []Seen{here, there} {
		for _, snap := range seen.Snaps {
			if strings.HasPrefix(snap.Name, ".rbd-mirror.") {
				return "it has the sync point " + snap.Name
			}
		}
	}
	if why := f.Other.says(d, "up+replaying", ""); why != "" {
		return why
	}
	return f.At.says(d, "up+stopped", "local image is primary")
}

// behind says whether the mirror has committed less of the journal than the primary.
func (f *Family) behind(d *Disk, id string) string {
	values, err := f.At.ioctx[d.Place].GetOmapValues("journal."+id, "", "client_", 16)
	if err != nil {
		return err.Error()
	}
	positions := map[string]journal.ObjectPosition{}
	for key, value := range values {
		var client journal.Client
		d := encoding.NewDecoder("journal client", value)
		client.Decode(d)
		if err := d.Err(); err != nil {
			return fmt.Sprintf("%s: %v", key, err)
		}
		positions[client.ID], _ = client.CommitPosition.Newest()
	}
	master := positions[""]
	delete(positions, "")
	if len(positions) == 0 {
		return "no mirror is registered with the journal"
	}
	for id, p := range positions {
		if p.Tag < master.Tag || p.Tag == master.Tag && p.Entry < master.Entry {
			return fmt.Sprintf("mirror %s has committed %+v, the primary %+v", id, p, master)
		}
	}
	return ""
}

// says asks a site for the image's status.
func (s *Site) says(d *Disk, state, description string) string {
	var all rbd.GlobalMirrorImageStatus
	err := s.with(d.Place, d.Name, rbd.NoSnapshot, func(image *rbd.Image) (err error) {
		all, err = image.GetGlobalMirrorStatus()
		return err
	})
	if err != nil {
		return err.Error()
	}
	status, err := all.LocalStatus()
	if err != nil {
		return fmt.Sprintf("no status on %s: %v", s, err)
	}
	got := "down+"
	if status.Up {
		got = "up+"
	}
	got += status.State.String()
	why := fmt.Sprintf("status on %s is %s %q", s, got, status.Description)
	if got != state || !strings.HasPrefix(status.Description, description) {
		return why
	}
	if state == "up+replaying" {
		replay, err := harness.Status{Description: status.Description}.Replay()
		if err != nil || replay.Behind == nil || *replay.Behind != 0 {
			return why
		}
	}
	return ""
}

// compare fails the test unless an image is what it must be, on both sites.
func (f *Family) compare(d *Disk) {
	if d.Trashed {
		return
	}
	here := f.compareOn(f.At, d, true)
	if !d.Mirrored || here == nil {
		return
	}
	there := f.compareOn(f.Other, d, false)
	if there == nil {
		return
	}
	if here.Order != there.Order || here.StripeUnit != there.StripeUnit || here.StripeCount != there.StripeCount ||
		here.Features != there.Features || here.Parent != there.Parent || !maps.Equal(here.Meta, there.Meta) {
		f.t.Errorf("%s differs:\n%s: %+v\n%s: %+v", d, f.At, here, f.Other, there)
	}
}

// compareOn compares one site with what must be there.
func (f *Family) compareOn(s *Site, d *Disk, primary bool) *Seen {
	seen, err := s.look(d.Place, d.Name)
	if err != nil {
		f.t.Errorf("%s on %s: %v", d, s, err)
		return nil
	}
	if seen.Size != d.Size || !maps.Equal(seen.Meta, d.Meta) || seen.Primary != (primary && d.Mirrored) {
		f.t.Errorf("%s on %s is %+v, want size %d, metadata %v, primary %v", d, s, seen, d.Size, d.Meta, primary)
	}
	if has := seen.Features&rbd.FeatureObjectMap != 0; has != d.ObjectMap {
		f.t.Errorf("%s on %s: it has an object map: %v", d, s, has)
	}
	if want := f.parent(d); seen.Parent != want {
		f.t.Errorf("%s on %s hangs on %q, want %q", d, s, seen.Parent, want)
	}
	want := map[string]Snap{}
	for _, snap := range d.Snaps {
		want[snap.Name] = Snap{Name: snap.Name, Size: snap.Size, Protected: snap.Protected}
	}
	got := map[string]Snap{}
	for _, snap := range seen.Snaps {
		got[snap.Name] = snap
	}
	if !maps.Equal(got, want) {
		f.t.Errorf("%s on %s has the snapshots %v, want %v", d, s, got, want)
		return &seen
	}
	f.compareContents(s, d, rbd.NoSnapshot, d.Digest)
	for _, snap := range d.Snaps {
		f.compareContents(s, d, snap.Name, snap.Digest)
	}
	return &seen
}

func (f *Family) compareContents(s *Site, d *Disk, snap string, want harness.Digest) {
	got, err := s.digest(d.Place, d.Name, snap)
	if err != nil || got != want {
		f.t.Errorf("%s@%s on %s contains %+v, want %+v (%v)", d, snap, s, got, want, err)
	}
}

// parent names the snapshot that an image must hang on.
func (f *Family) parent(d *Disk) string {
	if d.Parent == nil {
		return ""
	}
	pool := f.run.places[d.Parent.Place].Pool
	return fmt.Sprintf("%s/%s/%s@%s", pool.Name, pool.Namespace, d.Parent.Name, d.ParentSnap.Name)
}

// checkNames waits until each site has the images that it must have and no others.
func (r *Run) checkNames() {
	t := r.witness("run")
	for place := range r.places {
		for _, s := range r.sites {
			want := map[string]bool{}
			for _, f := range r.families {
				for _, d := range f.Disks {
					if d.Place == place && !d.Trashed && (d.Mirrored || f.At == s) {
						want[d.Name] = true
					}
				}
			}
			harness.Eventually(t, settling, func() string {
				names, err := rbd.GetImageNames(s.ioctx[place])
				got := map[string]bool{}
				for _, name := range names {
					got[name] = true
				}
				if err != nil && !errors.Is(err, rbd.ErrNotFound) || !maps.Equal(got, want) {
					return fmt.Sprintf("%s has in place %d the images %v, want %v (%v)", s, place, got, want, err)
				}
				return ""
			})
		}
	}
}
