//go:build live

package image

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	cephrbd "github.com/ceph/go-ceph/rbd"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// compare compares all that can be seen of the twins. Both are closed meanwhile.
func (w *twins) compare() {
	w.t.Helper()
	w.closeBoth()
	defer w.openBoth()
	for _, snap := range append(slices.Clone(w.snaps), cephrbd.NoSnapshot) {
		want, got := w.readAll("theirs", snap), w.readAll("ours", snap)
		if !bytes.Equal(got, want) {
			w.t.Errorf("snapshot %q differs at %d of %d (%d)", snap, firstDifference(got, want), len(want), len(got))
		}
		if got := w.readByUs("theirs", snap); !bytes.Equal(got, want) {
			w.t.Errorf("snapshot %q of theirs, read by us, differs at %d of %d (%d)", snap, firstDifference(got, want), len(want), len(got))
		}
	}
	w.compareHistories()
	w.compareParents()
	w.compareUse() // before maps are rebuilt
	for _, line := range w.checkMaps("ours") {
		w.t.Error(line)
	}
	w.checkMaps("theirs")
}

func (w *twins) readAll(whose, snap string) []byte {
	w.t.Helper()
	image, err := cephrbd.OpenImageReadOnly(w.ioctx, w.name(whose), snap)
	w.must(err)
	defer func() { w.must(image.Close()) }()
	size, err := image.GetSize()
	w.must(err)
	out := make([]byte, size)
	n, err := image.ReadAt(out, 0)
	if err != nil || n != len(out) {
		w.t.Fatalf("read %d of %d: %v", n, len(out), err)
	}
	return out
}

func (w *twins) readByUs(whose, snap string) []byte {
	w.t.Helper()
	id, err := ID(w.ctx(), w.io, w.name(whose))
	w.must(err)
	at := ceph.NoSnap
	if snap != "" {
		h, err := ReadHeader(w.ctx(), w.io, id)
		w.must(err)
		at = h.Snapshot(nil, snap).ID
	}
	r, err := OpenReader(w.ctx(), w.io, id, at)
	w.must(err)
	defer r.Close()
	pieces, err := r.Read(w.ctx(), 0, r.Size())
	w.must(err)
	return Flat(pieces, 0, r.Size())
}

// compareHistories compares which objects exist, at the head and for which snapshots.
// Where the OSD divides an object's history may differ: a discard behind an object's
// end is no write to it, and trailing zeros are not copied up alike. What one batch writes
// and gives back again leaves an empty object there, and none here.
func (w *twins) compareHistories() {
	w.t.Helper()
	want, got := w.histories("theirs"), w.histories("ours")
	for _, n := range slices.Sorted(maps.Keys(want)) {
		if got[n] != want[n] && !(w.undone[n] && isPart(got[n], want[n])) {
			w.t.Errorf("object %d: %s, theirs: %s", n, got[n], want[n])
		}
	}
	for n := range got {
		if want[n] == "" {
			w.t.Errorf("object %d: %s, theirs does not exist", n, got[n])
		}
	}
}

// isPart says whether all states of one history are in the other.
func isPart(part, whole string) bool {
	in := strings.Fields(whole)
	return !slices.ContainsFunc(strings.Fields(part), func(s string) bool { return !slices.Contains(in, s) })
}

func (w *twins) histories(whose string) map[uint64]string {
	w.t.Helper()
	id, err := ID(w.ctx(), w.io, w.name(whose))
	w.must(err)
	h, err := ReadHeader(w.ctx(), w.io, id)
	w.must(err)
	out := make(map[uint64]string)
	data, err := openData(w.ctx(), w.io, h)
	w.must(err)
	for n := range h.Layout.ObjectCount(2 * liveCloneSize) {
		var op rados.ReadOp
		list := op.ListSnaps()
		err := data.Read(w.ctx(), h.Layout.ObjectName(ObjectNumber(n)), &op)
		if errors.Is(err, syscall.ENOENT) {
			continue
		}
		w.must(err)
		var states []string
		exists := slices.ContainsFunc(list.Clones, func(c rados.Clone) bool { return c.ID == ceph.NoSnap })
		for _, s := range h.Snapshots {
			if exists && s.ID > list.Seq || slices.ContainsFunc(list.Clones, func(c rados.Clone) bool { return slices.Contains(c.Snaps, s.ID) }) {
				states = append(states, s.Name)
			}
		}
		if exists {
			states = append(states, "head")
		}
		if len(states) > 0 {
			out[n] = strings.Join(states, " ")
		}
	}
	return out
}

// checkMaps lets rbd compare object maps with objects, and gives what is wrong; see
// checkObjectMaps. Maps with differences are made anew.
func (w *twins) checkMaps(whose string) (wrong []string) {
	w.t.Helper()
	image := livePool + "/" + w.name(whose)
	if !strings.Contains(w.rbd("info", image), "object-map") {
		return nil
	}
	for _, what := range append([]string{image}, atSign(image, w.snaps)...) {
		out, err := w.tryAll("rbd", "object-map", "check", "--no-progress", what)
		if err != nil {
			w.t.Errorf("object-map check %s: %v\n%s", what, err, out)
		}
		for line := range strings.Lines(out) {
			if strings.Contains(line, "object map error") && !strings.Contains(line, "marked as 1, but should be 3") {
				wrong = append(wrong, what+": "+line)
			}
		}
		if strings.Contains(out, "object map error") {
			w.rbd("object-map", "rebuild", "--no-progress", what)
		}
	}
	return wrong
}

// compareUse compares what "rbd du" tells, which it has from the object maps. After a
// rollback our maps say more precisely than librbd's what has changed since which
// snapshot (mapAfterRollback).
func (w *twins) compareUse() {
	w.t.Helper()
	if w.rolled || !w.im.Header().Features.Has(rbd.FeatureFastDiff) {
		return
	}
	use := func(whose string) (out []map[string]any) {
		var du struct {
			Images []map[string]any `json:"images"`
		}
		w.must(json.Unmarshal([]byte(w.rbd("du", "--format", "json", livePool+"/"+w.name(whose))), &du))
		for _, i := range du.Images {
			delete(i, "name")
			delete(i, "id")
			delete(i, "snapshot_id")
		}
		return du.Images
	}
	theirs, ours := use("theirs"), use("ours")
	same := len(theirs) == len(ours)
	for i := 0; same && i < len(ours); i++ {
		// What one batch wrote and gave back is an empty object there: see compareHistories.
		a, _ := theirs[i]["used_size"].(float64)
		b, _ := ours[i]["used_size"].(float64)
		empty := float64(len(w.undone)) * float64(w.im.Header().Layout.ObjectSize())
		if a >= b && a-b <= empty {
			theirs[i]["used_size"] = b
		}
		same = fmt.Sprint(theirs[i]) == fmt.Sprint(ours[i])
	}
	if !same {
		w.t.Errorf("rbd du: %v, theirs: %v", ours, theirs)
	}
}

// compareParents compares what the headers say of the parent, and whether it knows of
// them.
func (w *twins) compareParents() {
	w.t.Helper()
	tell := func(whose string) string {
		id, err := ID(w.ctx(), w.io, w.name(whose))
		w.must(err)
		h, err := ReadHeader(w.ctx(), w.io, id)
		w.must(err)
		text := fmt.Sprintf("%+v attached %v overlap %d", h.Parent, h.Attached, h.Overlap)
		for _, s := range h.Snapshots {
			text += fmt.Sprintf(" %s attached %v overlap %d", s.Name, s.Attached, s.Overlap)
		}
		parent, err := w.cluster.OpenID(w.ctx(), h.Parent.Pool, h.Parent.Namespace)
		if h.Parent.Exists() {
			w.must(err)
			defer parent.Close()
			list, _ := rados.Ask(w.ctx(), parent, rbd.HeaderObject(h.Parent.ImageID), rbd.ChildrenList(h.Parent.Snap))
			old, _ := rados.Ask(w.ctx(), w.io, rbd.ChildrenObject, rbd.GetChildren(h.Parent))
			text += fmt.Sprintf(" listed %v %v", slices.Contains(list, rbd.ChildSpec{Pool: w.io.Pool().ID, ImageID: id}), slices.Contains(old, id))
		}
		return text
	}
	if want, got := tell("theirs"), tell("ours"); got != want {
		w.t.Errorf("%s, theirs: %s", got, want)
	}
}
