package bench

import (
	"encoding/binary"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/ceph/go-ceph/rados"
)

// probe is one write and what is known of it.
type probe struct {
	number uint64
	acked  time.Time
	seen   time.Time
}

// lane is the writes to one image. Each goes to a block of its own until all blocks were used; a write to a block that was
// used before waits until the write before was seen, so that none can hide another.
type lane struct {
	v      *Volume
	mu     sync.Mutex
	acked  []probe // not seen yet, in the order of their acknowledgement
	seen   []probe
	number uint64
}

// blocks is how many writes to an image do not meet.
func (l *lane) blocks() uint64 { return (l.v.size - block) / block }

// place is where a write goes: neighbours in time to different data objects.
func (l *lane) place(number uint64) uint64 {
	n := number % l.blocks()
	objects := l.v.size >> l.v.order
	perObject := l.blocks() / objects
	if n < objects*perObject {
		return (n%objects*perObject + n/objects) * block
	}
	return n * block
}

// write writes a block every so often, until the time is over or stop is closed.
func (l *lane) write(stop <-chan struct{}, every, length time.Duration) error {
	timer := time.NewTicker(every)
	defer timer.Stop()
	for end := time.Now().Add(length); time.Now().Before(end); {
		select {
		case <-stop:
			return nil
		case <-timer.C:
		}
		l.number++
		if uint64(l.left()) >= l.blocks()-1 {
			continue // so far behind is the mirror that the next block is not seen yet
		}
		b := make([]byte, block)
		copy(b, payload(int(l.number), block))
		binary.LittleEndian.PutUint64(b, l.number)
		if _, err := l.v.disk.WriteAt(b, int64(l.place(l.number))); err != nil {
			return err
		}
		l.mu.Lock()
		l.acked = append(l.acked, probe{number: l.number, acked: time.Now()})
		l.mu.Unlock()
	}
	return nil
}

// left is how many writes were acknowledged and not seen.
func (l *lane) left() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.acked)
}

// looksEvery is the pause between two looks, longer when what is looked for is old: a hundredth of its age is precise enough.
func looksEvery(age time.Duration) time.Duration {
	return min(max(2*time.Millisecond, age/100), 20*time.Millisecond)
}

// watch looks at the copy until over is closed.
func (l *lane) watch(over <-chan struct{}) error {
	pause := looksEvery(0)
	for {
		select {
		case <-over:
			return nil
		case <-time.After(pause):
		}
		l.mu.Lock()
		waiting := slices.Clone(l.acked)
		l.mu.Unlock()
		if len(waiting) == 0 {
			continue
		}
		pause = looksEvery(time.Since(waiting[0].acked))
		if err := l.look(waiting); err != nil {
			return err
		}
	}
}

// lookMost is how many blocks of an object one look reads.
const lookMost = 64

// look reads the beginnings of blocks that are waited for, with one operation a data object, and notes those that are there.
func (l *lane) look(waiting []probe) error {
	type wanted struct {
		at     []uint64
		number []uint64
	}
	objects := map[string]*wanted{}
	for _, w := range waiting {
		oid, at := l.v.object(l.place(w.number))
		if objects[oid] == nil {
			objects[oid] = &wanted{}
		}
		if o := objects[oid]; len(o.at) < lookMost {
			o.at, o.number = append(o.at, at), append(o.number, w.number)
		}
	}
	there := map[uint64]time.Time{}
	for oid, o := range objects {
		op := rados.CreateReadOp()
		steps, heads := make([]*rados.ReadOpReadStep, len(o.at)), make([]byte, 8*len(o.at))
		for i, at := range o.at {
			steps[i] = op.Read(at, heads[8*i:8*i+8])
		}
		err := op.Operate(l.v.place.there, oid, rados.OperationNoFlag)
		now := time.Now()
		l.v.place.looked(8*len(steps), err)
		for i, step := range steps {
			if err == nil && step.BytesRead == 8 && binary.LittleEndian.Uint64(heads[8*i:]) == o.number[i] {
				there[o.number[i]] = now
			}
		}
		op.Release()
		if err != nil && !errors.Is(err, rados.ErrNotFound) {
			return err
		}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.acked = slices.DeleteFunc(l.acked, func(w probe) bool {
		seen, ok := there[w.number]
		if ok {
			w.seen = seen
			l.seen = append(l.seen, w)
		}
		return ok
	})
	return nil
}
