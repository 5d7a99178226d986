package site

import (
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/cluster/leader"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

const (
	mapEpoch   = "rbd_warden_map_epoch"
	mapPrefix  = "image_map_"
	wellEnough = 5 * time.Second
	handover   = 15 * time.Second // coordinator's

	memberLock   = "rbd_warden_member"
	memberPrefix = "member_"
	beatPrefix   = "beat_"
	tombPrefix   = "fenced_"
)

// oracle looks at each operation whether it was its sender's right.
type oracle struct {
	site *site

	mu       sync.Mutex
	broken   string // the first violation
	sessions uint64
	images   map[key]*record
	blocked  map[string]bool // addresses
	epochs   map[string]uint64
	writes   int // of owners
	fencings int
	lands    int // writes of the map
}

// record is what the oracle knows of an image.
type record struct {
	session uint64    // that wrote last
	wrote   time.Time // then
	owner   string    // by the map
	since   time.Time // when the map gave it to that one
}

func newOracle(s *site) *oracle {
	return &oracle{site: s, images: map[key]*record{}, blocked: map[string]bool{}, epochs: map[string]uint64{}}
}

// violated notes the first violation. The caller has the lock.
func (o *oracle) violated(format string, args ...any) {
	text := fmt.Sprintf(format, args...)
	o.site.trace.Add("VIOLATION: %s", text)
	if o.broken == "" {
		o.broken = text
	}
}

func (o *oracle) violation() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.broken
}

// of is an image's record. The caller has the lock.
func (o *oracle) of(k key) *record {
	if o.images[k] == nil {
		o.images[k] = &record{}
	}
	return o.images[k]
}

// observe is called after each operation, with the cluster's lock held.
func (o *oracle) observe(v mem.View, op mem.Op, err error) {
	w := o.site.faults.worker(op.Client)
	if w == nil {
		return
	}
	o.site.trace.Add("%s: %s %s %x: %v", w, op.Kind, op.Object, fingerprint(op, 0), err)
	if err != nil || op.Kind != mem.Write {
		return
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.blocked[w.client.Addresses()] {
		o.violated("%s was fenced, and has written %s", w, op.Object)
	}
	switch op.Object {
	case leader.Object:
		if isDecision(op) {
			o.decided(v, op, w)
		}
	case membership.Object:
		o.enrolled(op)
	default:
		o.wrote(v, op, w)
	}
}

// wrote: an image's writes are those of one owner after the other, each with the lock.
func (o *oracle) wrote(v mem.View, op mem.Op, w *worker) {
	id, ok := strings.CutPrefix(op.Object, dataPrefix)
	if !ok {
		id = strings.TrimPrefix(op.Object, headerPrefix)
	}
	for _, s := range op.Write.Steps {
		if s.Kind != rados.WriteData && (s.Kind != rados.WriteSetXattr || s.Name != writtenXattr) {
			continue
		}
		r, session := o.of(key{op.Namespace, id}), binary.BigEndian.Uint64(s.Data)
		if session < r.session {
			o.violated("%s: session %d of %s has written after session %d", id, session, w, r.session)
		}
		if !v.Holds(op.Client, headerPrefix+id, cls.RBDName) {
			o.violated("%s: %s has written without the lock", id, w)
		}
		r.session, r.wrote = session, time.Now()
		o.writes++
	}
}

// isDecision tells whether an operation is a write of the image map.
func isDecision(op mem.Op) bool {
	return op.Kind == mem.Write && op.Object == leader.Object && epochOf(op) != ""
}

func epochOf(op mem.Op) string {
	for _, s := range op.Write.Steps {
		if s.Kind == rados.WriteSetXattr && s.Name == mapEpoch {
			return string(s.Data)
		}
	}
	return ""
}

// decided: the map is written by who holds the leader's lock, on what was read.
func (o *oracle) decided(v mem.View, op mem.Op, w *worker) {
	o.lands++
	if !v.Holds(op.Client, leader.Object, cls.RBDName) {
		o.violated("%s has written the image map without the leader's lock", w)
	}
	epoch, err := strconv.ParseUint(epochOf(op), 10, 64)
	if err != nil || epoch != o.epochs[op.Namespace]+1 {
		o.violated("%s has written epoch %d of the map behind %d", w, epoch, o.epochs[op.Namespace])
	}
	o.epochs[op.Namespace] = epoch
	for _, s := range op.Write.Steps {
		if s.Kind != rados.WriteOmapSet {
			continue
		}
		for name, value := range s.Pairs {
			id, ok := strings.CutPrefix(name, mapPrefix)
			if !ok {
				continue
			}
			m, err := mirror.DecodeImageMap(value)
			if err != nil {
				o.violated("%s has written an entry that cannot be read: %v", w, err)
				continue
			}
			if r := o.of(key{op.Namespace, id}); r.owner != m.InstanceID {
				r.owner, r.since = m.InstanceID, time.Now()
			}
		}
	}
}

// enrolled: who is entered as fenced is refused by the cluster.
func (o *oracle) enrolled(op mem.Op) {
	for _, s := range op.Write.Steps {
		if s.Kind != rados.WriteOmapSet {
			continue
		}
		for name := range s.Pairs {
			id, ok := strings.CutPrefix(name, tombPrefix)
			if !ok {
				continue
			}
			o.fencings++
			if w := o.site.byID(id); w != nil && !o.blocked[w.client.Addresses()] {
				o.violated("%s is entered as fenced, and the cluster does not refuse it", w)
			}
		}
	}
}

// fences is called when a worker is about to have another refused: not one that is well,
// if it is well itself.
func (o *oracle) fences(by *worker, address string) {
	target := o.site.at(address)
	if target == nil {
		return
	}
	a, b := by.wellFor(), target.wellFor()
	o.mu.Lock()
	defer o.mu.Unlock()
	if a > wellEnough && b > wellEnough && !o.blocked[address] {
		o.violated("%s fences %s, which has been well for %v", by, target, b)
	}
}

// fenced is called when an address is refused by now.
func (o *oracle) fenced(address string) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.blocked[address] = true
}

func (o *oracle) refuses(w *worker) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.blocked[w.client.Addresses()]
}

// given is called when a worker is told to run an image: nobody runs it who has not been
// waited for. Whom the cluster refuses may not know yet that it was given to others meanwhile.
func (o *oracle) given(w *worker, k key) {
	if o.refuses(w) {
		return
	}
	for _, other := range o.site.running(k) {
		if other.w == w || other.w.isDead() || other.w.isStruck() || o.refuses(other.w) {
			continue
		}
		o.mu.Lock()
		if r := o.of(k); time.Since(r.since) < handover {
			o.violated("%s is told to run %s, %v after it was mapped to it, and %s has not let go of it", w, k, time.Since(r.since), other.w)
		}
		o.mu.Unlock()
	}
}

// acquired numbers the owners of an image: never do two believe that they may write and can.
func (o *oracle) acquired(by *owner) (session uint64) {
	for _, other := range o.site.running(by.key) {
		if other != by && other.valid() && by.valid() && !other.w.isDead() && !by.w.isDead() && !o.refuses(other.w) && !o.refuses(by.w) {
			o.mu.Lock()
			o.violated("%s: both %s and %s have the lock", by.key, other.w, by.w)
			o.mu.Unlock()
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.sessions++
	o.site.trace.Add("%s owns %s, session %d", by.w, by.key, o.sessions)
	return o.sessions
}
