package site

import (
	"maps"
	"slices"
	"strings"

	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
)

// What follows is what a pool's actor does (actors/pool/share.go): it begins with what the
// share gives to this worker, lets go of the rest, and says so. It runs in the inbox's
// goroutine.

func (w *worker) assigned(namespace string, share coordinator.Share) {
	before := w.shares[namespace]
	w.shares[namespace] = &share
	for _, id := range slices.Sorted(maps.Keys(share.Run)) {
		if before == nil || !has(before, id) {
			w.site.oracle.given(w, key{namespace, id})
		}
	}
	w.reconcile()
}

func has(s *coordinator.Share, id string) bool {
	if s == nil {
		return false
	}
	_, ok := s.Run[id]
	return ok
}

// reconcile makes what runs agree with what is mirrored and with the shares.
func (w *worker) reconcile() {
	w.mu.Lock()
	works, leaving := w.works && !w.leaving, w.leaving
	w.mu.Unlock()
	for _, k := range w.owned() {
		if !works || !slices.Contains(w.ids, k.id) || !has(w.shares[k.namespace], k.id) {
			w.owners[k].stop()
		}
	}
	if works {
		for _, ns := range w.site.set.namespaces {
			if w.shares[ns] == nil {
				continue
			}
			for _, id := range slices.Sorted(maps.Keys(w.shares[ns].Run)) {
				if k := (key{ns, id}); slices.Contains(w.ids, id) && w.owners[k] == nil {
					w.begin(k)
				}
			}
		}
	}
	for _, ns := range w.site.set.namespaces {
		w.tellApplied(ns)
	}
	if leaving && len(w.owners) == 0 {
		w.stop()
	}
}

// owned are the images that run here, or have not ended yet, in order.
func (w *worker) owned() []key {
	return slices.SortedFunc(maps.Keys(w.owners), func(a, b key) int { return strings.Compare(a.String(), b.String()) })
}

// tellApplied tells that nothing runs that is not in our share.
func (w *worker) tellApplied(namespace string) {
	share := w.shares[namespace]
	if share == nil || w.told[namespace] == share.Epoch {
		return
	}
	for k := range w.owners {
		if k.namespace == namespace && !has(share, k.id) {
			return
		}
	}
	w.told[namespace] = share.Epoch
	w.Applied(namespace, share.Epoch)
}

// begin starts with an image.
func (w *worker) begin(k key) {
	o := newOwner(w, k)
	w.owners[k] = o
	w.site.runs(o, true)
	w.site.trace.Add("%s begins with %s", w, k)
	w.actors.Go(func() {
		o.run()
		w.site.runs(o, false)
		w.site.trace.Add("%s has let go of %s", w, k)
		w.post(func() {
			delete(w.owners, k)
			w.reconcile()
		})
	})
}
