package replay

import (
	"fmt"
	"maps"
	"slices"
	"syscall"

	"pgregory.net/rapid"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// disk is a small image: the oracle of these tests.
type disk struct {
	data  []byte
	snaps map[string]snapshot
	meta  map[string]string
}

type snapshot struct {
	data      string
	protected bool
}

func newDisk(size int) *disk {
	return &disk{data: make([]byte, size), snaps: map[string]snapshot{}, meta: map[string]string{}}
}

func (d *disk) clone() *disk {
	return &disk{data: slices.Clone(d.data), snaps: maps.Clone(d.snaps), meta: maps.Clone(d.meta)}
}

func (d *disk) String() string {
	return fmt.Sprintf("data=%q snaps=%+v meta=%q", d.data, d.snaps, d.meta)
}

func (d *disk) io(io IO) {
	for i := range io.Length {
		at := io.Offset + i
		if at >= uint64(len(d.data)) {
			return
		}
		switch io.Kind {
		case Write:
			d.data[at] = io.Data[i]
		case WriteSame:
			d.data[at] = io.Data[i%uint64(len(io.Data))]
		case Discard:
			d.data[at] = 0
		}
	}
}

func (d *disk) compareAndWrite(offset uint64, compare, write []byte) {
	end := offset + uint64(len(write))
	if end <= uint64(len(d.data)) && string(d.data[offset:end]) == string(compare) {
		copy(d.data[offset:], write)
	}
}

// apply performs an operation with librbd's errors.
func (d *disk) apply(op journal.Operation) syscall.Errno {
	switch v := op.(type) {
	case journal.SnapCreate:
		if _, ok := d.snaps[v.Name]; ok {
			return syscall.EEXIST
		}
		d.snaps[v.Name] = snapshot{data: string(d.data)}
	case journal.SnapRemove:
		s, ok := d.snaps[v.Name]
		if !ok {
			return syscall.ENOENT
		}
		if s.protected {
			return syscall.EBUSY
		}
		delete(d.snaps, v.Name)
	case journal.SnapProtect:
		return d.protect(v.Name, true, syscall.EBUSY)
	case journal.SnapUnprotect:
		return d.protect(v.Name, false, syscall.EINVAL)
	case journal.SnapRollback:
		s, ok := d.snaps[v.Name]
		if !ok {
			return syscall.ENOENT
		}
		d.data = []byte(s.data)
	case journal.Resize:
		if int(v.Size) < len(d.data) {
			d.data = slices.Clone(d.data[:v.Size])
		} else {
			d.data = append(slices.Clone(d.data), make([]byte, int(v.Size)-len(d.data))...)
		}
	case journal.MetadataSet:
		d.meta[v.Key] = v.Value
	case journal.MetadataRemove:
		if _, ok := d.meta[v.Key]; !ok {
			return syscall.ENOENT
		}
		delete(d.meta, v.Key)
	case journal.Flatten:
	}
	return 0
}

func (d *disk) protect(name string, on bool, already syscall.Errno) syscall.Errno {
	s, ok := d.snaps[name]
	if !ok {
		return syscall.ENOENT
	}
	if s.protected == on {
		return already
	}
	s.protected = on
	d.snaps[name] = s
	return 0
}

// primary journals and performs I/O and operations as librbd does, with every
// interleaving of operations and I/O that librbd allows.
type primary struct {
	disk
	entries []Entry
	tag     journal.TagTID
	tid     journal.EntryTID
	ops     journal.OpTID
	running []*running
	mood
}

// mood is what a journal is full of. tight keeps all I/O on a few bytes.
type mood struct {
	ios, flush, compare, operation, finish int
	tight                                  bool
}

var moods = []mood{
	{ios: 50, flush: 12, compare: 8, operation: 12, finish: 14},
	{ios: 20, flush: 2, compare: 40, operation: 2, finish: 4, tight: true},
	{ios: 20, flush: 1, compare: 1, operation: 30, finish: 30, tight: true},
	{ios: 60, flush: 4, compare: 0, operation: 8, finish: 4, tight: true},
}

// running is an operation between its event and its OpFinish.
type running struct {
	op     journal.Operation
	done   bool
	result syscall.Errno
}

const (
	splay    = 3
	diskSize = 24
)

func newPrimary() *primary { return &primary{disk: *newDisk(diskSize), tag: 4} }

func (p *primary) log(ev journal.Event) {
	n := 0
	switch v := ev.(type) {
	case journal.AioWrite:
		n = len(v.Data)
	case journal.AioWriteSame:
		n = len(v.Data)
	case journal.AioCompareAndWrite:
		n = 2 * len(v.WriteData)
	}
	object := journal.ObjectNumber(uint64(p.tid)/20*splay + uint64(p.tid)%splay)
	p.entries = append(p.entries, Entry{
		Position: journal.ObjectPosition{Object: object, Tag: p.tag, Entry: p.tid},
		Event:    ev,
		Bytes:    10 + n,
	})
	p.tid++
}

// perform runs an operation's effect, after those that began before it: which of
// two operations at the same time takes effect first is not in the journal.
func (p *primary) perform(r *running) {
	for _, o := range p.running {
		if !o.done && placeOf(o.op) == anywhere {
			o.result, o.done = p.apply(o.op), true
		}
		if o == r {
			break
		}
	}
	if !r.done {
		r.result, r.done = p.apply(r.op), true
	}
}

func (p *primary) finish(r *running) {
	p.perform(r)
	p.log(journal.OpFinish{Op: r.op.Operation(), Result: -int32(r.result)})
	p.running = slices.DeleteFunc(p.running, func(o *running) bool { return o == r })
}

// newTag ends the tag: cleanly, or by a crash, after which the primary's own replay
// completes what was running. Operations that failed still say so: how a second try
// at them ends is not in the journal.
func (p *primary) newTag(crash bool) {
	for len(p.running) > 0 {
		r := p.running[0]
		if p.perform(r); crash && r.result == 0 {
			p.running = p.running[1:]
		} else {
			p.finish(r)
		}
	}
	p.tag += 2
	p.tid = 0
}

func (p *primary) rollingBack() bool {
	return slices.ContainsFunc(p.running, func(r *running) bool { return placeOf(r.op) == atFinish })
}

var snapNames = rapid.SampledFrom([]string{"a", "b", "c"})

// drawData uses few values so that compare-and-writes match and mismatch.
func drawData(t *rapid.T, n int) []byte {
	return rapid.SliceOfN(rapid.SampledFrom([]byte{'x', 'y', 0}), n, n).Draw(t, "data")
}

func (p *primary) drawExtent(t *rapid.T, longest int) (offset, length int) {
	last := len(p.data) - 1
	if p.tight {
		last = 2
	}
	offset = rapid.IntRange(0, last).Draw(t, "offset")
	return offset, rapid.IntRange(1, min(longest, len(p.data)-offset)).Draw(t, "length")
}

func (p *primary) drawIO(t *rapid.T) {
	offset, length := p.drawExtent(t, 6)
	off, n := uint64(offset), uint64(length)
	switch rapid.IntRange(0, 9).Draw(t, "io") {
	case 0:
		p.log(journal.AioDiscard{Offset: off, Length: n})
	case 1:
		p.log(journal.AioWriteSame{Offset: off, Length: n, Data: drawData(t, 1)})
	default:
		p.log(journal.AioWrite{Offset: off, Length: n, Data: drawData(t, length)})
	}
	io, _ := ioOf(p.entries[len(p.entries)-1].Event)
	p.io(io)
}

func (p *primary) drawCompareAndWrite(t *rapid.T) {
	offset, length := p.drawExtent(t, 2)
	ev := journal.AioCompareAndWrite{Offset: uint64(offset), Length: uint64(length),
		CompareData: slices.Clone(p.data[offset : offset+length]), WriteData: drawData(t, length)}
	if rapid.Bool().Draw(t, "mismatch") {
		ev.CompareData = drawData(t, length)
	}
	p.log(ev)
	p.compareAndWrite(ev.Offset, ev.CompareData, ev.WriteData)
}

func (p *primary) drawOperation(t *rapid.T) {
	p.ops++
	op, name := p.ops, snapNames.Draw(t, "snap")
	key := rapid.SampledFrom([]string{"k", "l"}).Draw(t, "key")
	var ev journal.Operation
	switch rapid.IntRange(0, 9).Draw(t, "op") {
	case 0, 1, 2:
		ev = journal.SnapCreate{Op: op, Name: name}
	case 3:
		ev = journal.SnapRemove{Op: op, Name: name}
	case 4:
		ev = journal.SnapProtect{Op: op, Name: name}
	case 5:
		ev = journal.SnapUnprotect{Op: op, Name: name}
	case 6:
		ev = journal.Resize{Op: op, Size: uint64(rapid.IntRange(4, diskSize).Draw(t, "size"))}
	case 7:
		ev = journal.MetadataSet{Op: op, Key: key, Value: fmt.Sprint(op)}
	case 8:
		ev = journal.MetadataRemove{Op: op, Key: key}
	case 9:
		ev = journal.Flatten{Op: op}
	}
	if rapid.IntRange(0, 4).Draw(t, "rollback") == 0 {
		ev = journal.SnapRollback{Op: op, Name: name}
	}
	p.start(t, ev)
}

// start journals an operation's event, unless it cannot succeed as things are: librbd
// looks before it journals, so failures come from operations that run at the same
// time. A rollback keeps operations out that would
// change the snapshots under it, and the other way round: two such at once are in
// no journal that one librbd writes.
func (p *primary) start(t *rapid.T, ev journal.Operation) {
	if v, rollback := ev.(journal.SnapRollback); rollback {
		if _, ok := p.snaps[v.Name]; !ok || len(p.running) > 0 {
			return
		}
	} else if p.rollingBack() {
		_, meta := ev.(journal.MetadataSet)
		_, resize := ev.(journal.Resize)
		_, create := ev.(journal.SnapCreate)
		if !meta && !resize && !create {
			return
		}
	}
	if v, ok := ev.(journal.SnapCreate); ok {
		for _, r := range slices.Clone(p.running) {
			// It works on the snapshot that had the name when it began.
			if _, exists := p.snaps[v.Name]; !exists && slices.Contains(subjects(r.op), "snapshot "+v.Name) {
				p.perform(r)
			}
		}
	}
	if p.clone().apply(ev) != 0 {
		return
	}
	p.log(ev)
	r := &running{op: ev}
	p.running = append(p.running, r)
	switch placeOf(ev) {
	case atEvent:
		p.running = p.running[:len(p.running)-1]
		if _, resize := ev.(journal.Resize); !resize && rapid.IntRange(0, 9).Draw(t, "fails") == 0 {
			r.done, r.result = true, syscall.EIO
		} else {
			r.result, r.done = p.apply(r.op), true
		}
		p.running = append(p.running, r)
	case anywhere:
		if rapid.Bool().Draw(t, "at once") {
			p.perform(r)
		}
	}
}

// draw makes one thing happen.
func (p *primary) draw(t *rapid.T) {
	m := p.mood
	total := m.ios + m.flush + m.compare + m.operation + m.finish
	switch n := rapid.IntRange(0, total+3).Draw(t, "event"); {
	case n < m.ios:
		p.drawIO(t)
	case n < m.ios+m.flush:
		p.log(journal.AioFlush{})
	case n < m.ios+m.flush+m.compare:
		p.drawCompareAndWrite(t)
	case n < m.ios+m.flush+m.compare+m.operation:
		p.drawOperation(t)
	case n < total:
		if len(p.running) > 0 {
			p.finish(p.running[rapid.IntRange(0, len(p.running)-1).Draw(t, "which")])
		}
	case n < total+2:
		p.log(journal.DemotePromote{})
	default:
		p.newTag(rapid.Bool().Draw(t, "crash"))
	}
}

// drawJournal is a journal in which every operation has ended, and the primary.
func drawJournal(t *rapid.T) *primary {
	p := newPrimary()
	p.mood = rapid.SampledFrom(moods).Draw(t, "mood")
	for range rapid.IntRange(1, 80).Draw(t, "events") {
		p.draw(t)
	}
	p.newTag(rapid.Bool().Draw(t, "crash"))
	p.log(journal.AioFlush{})
	return p
}
