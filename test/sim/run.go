package sim

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"
	"testing/cryptotest"
	"testing/synctest"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/rados/mem"
	"github.com/rbdwarden/rbdwarden/test/sim/seed"
)

// outcome is how a run ended.
type outcome struct {
	print   seed.Print
	took    time.Duration
	trouble time.Duration // how long the effects of the trouble lasted when it was over, in the run's own time
	err     error         // nil: all invariants held
}

// patience is how long a run waits, in its own time, for everything to be in order again
// when the trouble is over. 1,500 seeds take 38 s at most: whatever stands still until something
// looks again after minutes is found.
const patience = 2 * time.Minute

// simulate does the run of a seed. The trace is written to verbose unless that is nil.
func simulate(t *testing.T, seed uint64, verbose io.Writer) (out outcome) {
	t.Helper()
	cryptotest.SetGlobalRandom(t, seed)
	set := draw(rand.New(rand.NewPCG(seed, 1)))
	start := time.Now()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, seed, set, verbose)
		begin := time.Now()
		w.trace.Add("%+v", set)
		out.trouble, out.err = w.story()
		w.end()
		if err := w.oracle.violation(); err != "" {
			out.err = errors.New(err)
		}
		w.trace.Add("the end after %v: %v", time.Since(begin), out.err)
		out.print = w.trace.Print()
	})
	out.took = time.Since(start)
	return out
}

func (w *world) story() (trouble time.Duration, err error) {
	for seat := range w.workers {
		w.startWorker(seat)
	}
	w.tend()
	w.trouble()
	w.calm()
	over := time.Now()
	err = w.recovers()
	return time.Since(over), err
}

// recovers waits until every copy is equal and says so.
func (w *world) recovers() error {
	for _, p := range w.primaries {
		if err := p.settle(w.ctx); err != nil {
			return err
		}
	}
	var why error
	for range patience / time.Second {
		if v := w.oracle.violation(); v != "" {
			return errors.New(v)
		}
		w.tendCalmly()
		time.Sleep(time.Second)
		if why = w.behind(); why == nil {
			return w.equal()
		}
	}
	return fmt.Errorf("after %v without trouble: %w", patience, why)
}

// tendCalmly sees to it that each image runs where it is to run, and nowhere else.
func (w *world) tendCalmly() {
	for n, p := range w.primaries {
		for seat, k := range w.workers {
			if seat != w.owner[n] {
				k.leave(p.model)
			}
		}
	}
	w.tend()
}

// behind says what is still to be done.
func (w *world) behind() error {
	for n, p := range w.primaries {
		said := w.workers[w.owner[n]].said(p.model)
		if w.oracle.isPromoted(p.model) {
			if said.State == "replaying" {
				return fmt.Errorf("%s was promoted and its status is %q", p.globalID, said.State)
			}
			continue
		}
		if said.State != "replaying" || said.EntriesBehind != 0 {
			return fmt.Errorf("%s: its status is %q, %d entries behind: %s; last %v", p.globalID, said.State, said.EntriesBehind, said.Description, said.LastCause)
		}
		at := said.Safe
		if last, any := p.last(); any && (at == nil || at.Tag != uint64(last.tag) || at.Entry != uint64(last.entry)) {
			return fmt.Errorf("%s: safe is %v of %+v", p.globalID, at, last)
		}
	}
	return nil
}

// equal compares the copies with what the primaries have written.
func (w *world) equal() error {
	for _, p := range w.primaries {
		if w.oracle.isPromoted(p.model) {
			continue
		}
		if err := w.shows(p.model, ceph.NoSnap, p.next()-1); err != nil {
			return err
		}
		h, err := image.ReadHeader(w.ctx, w.hereIO, w.oracle.copyOf(p.model))
		if err != nil {
			return err
		}
		if err := w.sameSnapshots(p, h); err != nil {
			return err
		}
		there := p.image.Header()
		if h.Attached != there.Attached || h.Overlap != there.Overlap {
			return fmt.Errorf("%s: attached is %v and %d bytes are shared with the parent; on the primary %v, %d", p.globalID, h.Attached, h.Overlap, there.Attached, there.Overlap)
		}
	}
	return nil
}

// sameSnapshots compares the snapshots of a copy with the primary's.
func (w *world) sameSnapshots(p *primary, h *image.Header) error {
	for _, s := range h.Snapshots {
		if p.called(s.Name) == nil {
			return fmt.Errorf("%s: snapshot %s of the copy is not there on the primary", p.globalID, s.Name)
		}
	}
	for _, life := range p.lives {
		if life.removed != 0 {
			continue
		}
		s, there := h.Snapshot(rbd.UserSnapshot{}, life.name()), p.image.Header().Snapshot(rbd.UserSnapshot{}, life.name())
		if s == nil {
			return fmt.Errorf("%s: snapshot %s is missing", p.globalID, life.name())
		}
		// A snapshot that is taken while a flatten is under way shares with the parent on the primary. Here the
		// flatten comes first, and the snapshot has bytes of its own.
		shares := s.Attached && (!there.Attached || s.Overlap != there.Overlap)
		if s.Protection != there.Protection || shares {
			return fmt.Errorf("%s: snapshot %s: %v, attached is %v and %d bytes are shared with the parent; on the primary %v, %v, %d",
				p.globalID, s.Name, s.Protection, s.Attached, s.Overlap, there.Protection, there.Attached, there.Overlap)
		}
		if err := w.shows(p.model, s.ID, life.taken); err != nil {
			return fmt.Errorf("snapshot %s: %w", life.name(), err)
		}
	}
	return nil
}

// shows compares a copy, or a snapshot of it, with the primary's contents behind event n.
func (w *world) shows(m *model, snap ceph.SnapID, n int32) error {
	r, err := image.OpenReader(w.ctx, w.hereIO, w.oracle.copyOf(m), snap)
	if err != nil {
		return err
	}
	defer r.Close()
	pieces, err := r.Read(w.ctx, 0, r.Size())
	if err != nil {
		return err
	}
	got, want := image.Flat(pieces, 0, r.Size()), m.contents(n, 0, m.size(n))
	if len(got) != len(want) {
		return fmt.Errorf("%s has %d bytes instead of %d", m.globalID, len(got), len(want))
	}
	for s := range m.size(n) {
		if a, b := got[s*sector:][:sector], want[s*sector:][:sector]; !bytes.Equal(a, b) {
			have, _ := m.read(a, s)
			return fmt.Errorf("%s: sector %d shows %d instead of %d", m.globalID, s, have, m.value(s, n))
		}
	}
	return nil
}

// end stops all workers in order. No lock may be left of those that were not killed.
func (w *world) end() {
	w.calm()
	for _, k := range w.workers {
		for _, p := range w.primaries {
			k.leave(p.model)
		}
	}
	w.goes.Wait()
	w.oracle.local.Look(w.oracle.pool, "", func(v mem.View) {
		for _, p := range w.primaries {
			for _, k := range w.workers {
				if p.copied != "" && !k.local.Crashed() && !(p.promoted && w.faultsHere.refused[k.local]) && v.Holds(k.local, rbd.HeaderObject(p.copied), lock.RBDName) {
					w.oracle.violated("%s: worker %d has left it and holds its lock", p.globalID, k.seat)
				}
			}
		}
	})
	for _, pid := range w.processes {
		actors.ProcessRegistry.Remove(pid)
	}
	for _, p := range w.primaries {
		w.check(p.image.Close(w.ctx))
	}
	for _, k := range w.workers {
		k.local.Close()
		k.remote.Close()
	}
	time.Sleep(10 * time.Minute) // answers that nobody waits for any more are still on their way
}
