package random

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/ceph/go-ceph/rbd"

	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// patience is how long an operation may take, a paused cluster included.
const patience = 3 * time.Minute

// Family is an image and its clones: a plan, and the site on which they are primary. It is for one goroutine.
type Family struct {
	*Plan
	// At is the site where the images are primary, Other the one that they are mirrored to.
	At, Other *Site

	run      *Run
	t        witness
	now      Op                 // under way
	injuries chan time.Duration // how long to have a damaged journal, next
}

// do performs operations as they are drawn until there were n, or the run fails.
func (f *Family) do(n int) {
	for range n {
		if f.t.Failed() {
			return
		}
		select {
		case long := <-f.injuries:
			f.suffer(long)
		default:
		}
		f.perform(f.Next())
	}
}

// perform does one operation and notes what follows from it.
func (f *Family) perform(op Op) {
	began := time.Now()
	f.now = op
	f.t.log.Printf(f.t.who, "%s", op)
	digest := f.act(op)
	f.apply(op)
	switch op.Kind {
	case SnapCreate, SnapUnderLoad:
		op.Disk.Snaps[len(op.Disk.Snaps)-1].Digest = digest
	case Create, Clone:
		f.Disks[len(f.Disks)-1].Digest = digest
	}
	f.run.count(op.Kind)
	if took := time.Since(began); took > 5*time.Second {
		f.t.log.Printf(f.t.who, "that took %v", took.Round(time.Millisecond))
	}
}

// act does it to Ceph, and answers the digest of what was made.
func (f *Family) act(op Op) harness.Digest {
	d := op.Disk
	switch op.Kind {
	case Write, Burst, Reopen:
		f.guest(op)
	case Rest:
		time.Sleep(time.Duration(op.Seed%800) * time.Millisecond)
	case SnapCreate:
		f.rbd("snap", "create", "--no-progress", f.spec(d)+"@"+op.Name)
		return f.contents(d)
	case SnapUnderLoad:
		return f.snapUnderLoad(op)
	case SnapRemove:
		f.rbd("snap", "rm", "--no-progress", f.spec(d)+"@"+op.Snap.Name)
	case SnapRename:
		f.rbd("snap", "rename", f.spec(d)+"@"+op.Snap.Name, f.spec(d)+"@"+op.Name)
	case SnapProtect:
		f.rbd("snap", "protect", f.spec(d)+"@"+op.Snap.Name)
	case SnapUnprotect:
		f.rbd("snap", "unprotect", f.spec(d)+"@"+op.Snap.Name)
	case Rollback:
		f.rollback(op)
	case Purge:
		f.purge(d)
	case SnapLimit:
		if op.Seed%2 == 0 {
			f.rbd("snap", "limit", "clear", f.spec(d))
		} else {
			f.rbd("snap", "limit", "set", "--limit", fmt.Sprint(30+op.Seed%50), f.spec(d))
		}
	case Grow, Shrink:
		f.resize(op)
	case Rename:
		f.rbd("rename", f.spec(d), f.named(d.Place, op.Name))
	case MetaSet:
		f.rbd("image-meta", "set", f.spec(d), op.Name, metaValue(op))
	case MetaRemove:
		f.rbd("image-meta", "remove", f.spec(d), op.Name)
	case MapOff:
		f.rbd("feature", "disable", f.spec(d), "object-map", "fast-diff")
	case MapOn:
		f.rbd("feature", "enable", f.spec(d), "object-map", "fast-diff")
		// Of the snapshots, too: librbd rolls back by a snapshot's map without looking whether it is flagged invalid.
		f.rbd("object-map", "rebuild", "--no-progress", f.spec(d))
		for _, s := range d.Snaps {
			f.rbd("object-map", "rebuild", "--no-progress", f.spec(d)+"@"+s.Name)
		}
	default:
		return f.actOnLife(op)
	}
	return harness.Digest{}
}

// actOnLife does what makes images, ends them, or takes them in and out of mirroring.
func (f *Family) actOnLife(op Op) harness.Digest {
	d := op.Disk
	switch op.Kind {
	case Create:
		f.create(op)
		digest, err := f.At.digest(op.Place, op.Name, rbd.NoSnapshot)
		if err != nil {
			f.t.Fatalf("read the new %s: %v", op.Name, err)
		}
		return digest
	case Clone:
		f.clone(op)
		return op.Snap.Digest
	case Flatten:
		f.rbd("flatten", "--no-progress", f.spec(d))
	case Remove:
		f.close(d)
		f.insist("snap", "purge", "--no-progress", f.spec(d))
		f.insist("rm", "--no-progress", f.spec(d))
	case TrashMove:
		f.close(d)
		f.trashMove(op)
	case TrashRestore:
		f.trashRestore(op)
	case MirrorOff:
		f.close(d)
		f.mirrorOff(d)
	case MirrorOn:
		f.close(d)
		if f.run.places[d.Place].Each {
			f.rbd("mirror", "image", "enable", f.spec(d), "journal")
		} else {
			f.rbd("feature", "enable", f.spec(d), "journaling")
		}
	}
	return harness.Digest{}
}

// named is a name with the place's pool and namespace.
func (f *Family) named(place int, name string) string {
	return f.run.places[place].Pool.Spec() + "/" + name
}

func (f *Family) spec(d *Disk) string { return f.named(d.Place, d.Name) }

// rbd runs a command on the family's site; it must succeed.
func (f *Family) rbd(args ...string) string {
	f.t.Helper()
	out, err := try(f.At.Cluster, args...)
	for left := 10; left > 0 && err != nil && strings.Contains(err.Error(), "(30) Read-only file system"); left-- {
		// librbd has lost the image's lock between taking and needing it, to whoever asked: the other site's daemon takes
		// and removes its own snapshot. It says so before it begins.
		f.t.log.Printf(f.t.who, "rbd %s lost the lock", args[0])
		out, err = try(f.At.Cluster, args...)
	}
	for err != nil && strings.Contains(err.Error(), "ceph_assert") {
		// A bug of Ceph's, seen in rename: its client fails an assertion, more often than not when all is done.
		f.t.log.Printf(f.t.who, "rbd %s failed an assertion", args[0])
		if f.happened(f.now) {
			return ""
		}
		out, err = try(f.At.Cluster, args...)
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// purge removes all snapshots. "rbd snap purge" lists them and removes one after the other, and fails on a sync point that the
// other site's daemon has removed in between.
func (f *Family) purge(d *Disk) {
	f.t.Helper()
	for left := 5; ; left-- {
		_, err := try(f.At.Cluster, "snap", "purge", "--no-progress", f.spec(d))
		if err == nil {
			return
		}
		if left == 0 || !strings.Contains(err.Error(), "removing snaps failed: (2)") {
			f.t.Fatal(err)
		}
	}
}

// happened says whether the site has what an operation was to bring about, for those where that can be seen.
func (f *Family) happened(op Op) bool {
	d, name := op.Disk, ""
	if op.Kind == Rename {
		_, err := f.At.look(d.Place, op.Name)
		return err == nil
	}
	seen, err := f.At.look(d.Place, d.Name)
	if err != nil {
		return false
	}
	switch op.Kind {
	case SnapCreate, SnapUnderLoad, SnapRename:
		name = op.Name
	case SnapRemove:
		return !slices.ContainsFunc(seen.Snaps, func(s Snap) bool { return s.Name == op.Snap.Name })
	case Grow, Shrink:
		return seen.Size == op.Size
	default:
		return false
	}
	return slices.ContainsFunc(seen.Snaps, func(s Snap) bool { return s.Name == name })
}

// try runs rbd on a cluster.
func try(c *lab.Cluster, args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return c.CLI(ctx, "rbd", args...)
}

// insist is insistOn on the family's site.
func (f *Family) insist(args ...string) {
	f.t.Helper()
	f.insistOn(f.At, args...)
}

// insistOn repeats a command until it succeeds. Ceph refuses some for a moment: while the other site copies an image, which
// is then open and has the mirror's own snapshot, or before a demotion has been replayed.
func (f *Family) insistOn(s *Site, args ...string) {
	f.t.Helper()
	var told string
	for deadline := time.Now().Add(patience); ; time.Sleep(300 * time.Millisecond) {
		_, err := try(s.Cluster, args...)
		if err == nil {
			return
		}
		if told != err.Error() {
			f.t.log.Printf(f.t.who, "refused: %v", err)
			told = err.Error()
		}
		if time.Now().After(deadline) {
			f.t.Fatal(err)
		}
	}
}

// writer opens an image as a guest does, and finds in it what it must contain.
func (f *Family) writer(d *Disk, seed uint64) *harness.Writer {
	f.t.Helper()
	if d.writer != nil {
		return d.writer
	}
	image := &harness.Image{Pool: f.run.places[d.Place].Pool, Name: d.Name}
	d.writer = image.NewWriter(f.t, f.At.Cluster, seed)
	if got := d.writer.Digest(); got != d.Digest {
		f.t.Fatalf("%s on %s contains %+v when opened, want %+v", d, f.At, got, d.Digest)
	}
	return d.writer
}

// close closes an image that the guest has open.
func (f *Family) close(d *Disk) {
	if d.writer == nil {
		return
	}
	d.Digest = d.writer.Digest()
	d.writer.Close()
	d.writer = nil
}

// contents is what the image must hold now.
func (f *Family) contents(d *Disk) harness.Digest {
	if d.writer != nil {
		return d.writer.Digest()
	}
	return d.Digest
}

func (f *Family) guest(op Op) {
	if op.Kind == Reopen {
		f.close(op.Disk)
		return
	}
	w := f.writer(op.Disk, op.Seed)
	if op.Kind == Write {
		w.Write(int(op.Size))
		return
	}
	for left := int(op.Size); left > 0; left -= 6 {
		w.Burst(min(left, 6))
	}
}

// snapUnderLoad takes a snapshot while the guest writes: what it holds is known only afterwards.
func (f *Family) snapUnderLoad(op Op) harness.Digest {
	w := f.writer(op.Disk, op.Seed)
	var (
		wait   sync.WaitGroup
		failed error
	)
	wait.Go(func() {
		_, failed = try(f.At.Cluster, "snap", "create", "--no-progress", f.spec(op.Disk)+"@"+op.Name)
	})
	for range 25 {
		w.Burst(4)
	}
	wait.Wait()
	if failed != nil {
		f.t.Fatal(failed)
	}
	digest, err := f.At.digest(op.Disk.Place, op.Disk.Name, op.Name)
	if err != nil {
		f.t.Fatal(err)
	}
	return digest
}

// rollback goes back to a snapshot, which the image must then equal. Ceph wants no guest for that.
func (f *Family) rollback(op Op) {
	f.close(op.Disk)
	f.rbd("snap", "rollback", "--no-progress", f.spec(op.Disk)+"@"+op.Snap.Name)
	op.Disk.Digest = op.Snap.Digest
	f.writer(op.Disk, op.Seed)
}

func (f *Family) resize(op Op) {
	w := f.writer(op.Disk, op.Seed)
	if op.Guest {
		w.Resize(op.Size)
		return
	}
	f.rbd("resize", "--no-progress", "--allow-shrink", "--size", fmt.Sprintf("%dB", op.Size), f.spec(op.Disk))
	w.Resized(op.Size)
}

// create makes an image that is mirrored.
func (f *Family) create(op Op) {
	layout, place := layouts[op.Layout], f.run.places[op.Place]
	features := []string{"layering", "exclusive-lock", "deep-flatten"}
	if layout.ObjectMap {
		features = append(features, "object-map", "fast-diff")
	}
	if !place.Each {
		features = append(features, "journaling")
	}
	args := []string{"create", "--size", fmt.Sprintf("%dB", op.Size), "--image-feature", strings.Join(features, ",")}
	f.rbd(append(append(args, layout.Flags...), f.named(op.Place, op.Name))...)
	if place.Each {
		f.rbd("mirror", "image", "enable", f.named(op.Place, op.Name), "journal")
	}
}

// clone makes a child of a snapshot, of the parent's make.
func (f *Family) clone(op Op) {
	features := "layering,exclusive-lock,deep-flatten"
	if op.Disk.Layout.ObjectMap {
		features += ",object-map,fast-diff"
	}
	if !f.run.places[op.Place].Each {
		features += ",journaling"
	}
	args := append([]string{"clone", "--image-feature", features}, op.Disk.Layout.Flags...)
	f.rbd(append(args, f.spec(op.Disk)+"@"+op.Snap.Name, f.named(op.Place, op.Name))...)
	if f.run.places[op.Place].Each {
		f.rbd("mirror", "image", "enable", f.named(op.Place, op.Name), "journal")
	}
}

// mirrorOff ends an image's mirroring. In pool mode librbd, which takes the error for harmless, leaves its record in the state
// "disabling" where it could not remove the snapshot of a sync under way; an operator can but try again.
func (f *Family) mirrorOff(d *Disk) {
	if f.run.places[d.Place].Each {
		f.insist("mirror", "image", "disable", f.spec(d))
		return
	}
	for deadline := time.Now().Add(patience); ; {
		f.insist("feature", "disable", f.spec(d), "journaling")
		seen, err := f.At.look(d.Place, d.Name)
		if err != nil {
			f.t.Fatal(err)
		}
		if seen.Mirror == "" {
			return
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("%s: mirroring stays %s though there is no journal", d, seen.Mirror)
		}
		f.t.log.Printf(f.t.who, "mirroring is still %s: once more", seen.Mirror)
		f.rbd("feature", "enable", f.spec(d), "journaling")
	}
}

func (f *Family) trashMove(op Op) {
	seen, err := f.At.look(op.Disk.Place, op.Disk.Name)
	if err != nil {
		f.t.Fatal(err)
	}
	op.Disk.id = seen.ID
	f.insist("trash", "mv", f.spec(op.Disk))
}

func (f *Family) trashRestore(op Op) {
	f.rbd("trash", "restore", "--image", op.Name, f.named(op.Disk.Place, op.Disk.id))
}

// move makes the other site the family's: orderly, or by force and with a re-sync of what was left behind.
func (f *Family) move(force bool) {
	f.t.log.Printf(f.t.who, "failover from %s to %s, force: %v", f.At, f.Other, force)
	for _, d := range f.Disks {
		if force {
			f.insistOn(f.Other, "mirror", "image", "promote", "--force", f.spec(d))
			f.insistOn(f.At, "mirror", "image", "demote", f.spec(d))
			f.insistOn(f.At, "mirror", "image", "resync", f.spec(d))
			continue
		}
		f.insistOn(f.At, "mirror", "image", "demote", f.spec(d))
		f.insistOn(f.Other, "mirror", "image", "promote", f.spec(d))
	}
	f.At, f.Other = f.Other, f.At
	f.t.log.Printf(f.t.who, "is on %s", f.At)
}

// isNotFound says whether an image is not there.
func isNotFound(err error) bool { return errors.Is(err, rbd.ErrNotFound) }
