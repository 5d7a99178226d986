package random

import (
	"fmt"
	"math/rand/v2"
	"slices"
)

const (
	mostDisks = 4 // of a family, without those in the trash
	mostSnaps = 5 // of an image
	mib       = 1 << 20
)

// metaKeys are drawn for image metadata; the first is an option of librbd, as rbd config image set stores it.
var metaKeys = []string{"conf_rbd_qos_iops_limit", "owner", "note", "app.kubernetes.io/name"}

// Plan is what a family's choices come from: its own stream, and what it knows of its images.
type Plan struct {
	// Disks are the family's images, those in the trash too. The order is that of their creation.
	Disks []*Disk

	random *rand.Rand
	name   string // prefix of all of its names
	places []int  // where it may create
	each   []bool // by place: images are enabled one by one
	clones bool
	serial int
	freed  []string // names that were used and are free
}

// newPlan makes a family's plan; number tells families of a run apart.
func newPlan(seed uint64, number int, places []int, each []bool, clones bool) *Plan {
	return &Plan{
		random: rand.New(rand.NewPCG(seed, uint64(number)+1)), name: fmt.Sprintf("f%d", number),
		places: places, each: each, clones: clones,
	}
}

// Next draws the family's next operation. It depends on the stream and on Disks only.
func (p *Plan) Next() Op {
	if len(p.Disks) == 0 {
		return p.create()
	}
	total := 0
	for _, w := range weights {
		total += w
	}
	for {
		at := p.random.IntN(total)
		kind := Kind(0)
		for ; at >= weights[kind]; kind++ {
			at -= weights[kind]
		}
		if op, ok := p.draw(kind); ok {
			return op
		}
	}
}

// pick draws one of the images that fit.
func (p *Plan) pick(fits func(*Disk) bool) *Disk {
	var found []*Disk
	for _, d := range p.Disks {
		if fits(d) {
			found = append(found, d)
		}
	}
	if len(found) == 0 {
		return nil
	}
	return found[p.random.IntN(len(found))]
}

// pickSnap draws a snapshot that fits, of any image that is not in the trash.
func (p *Plan) pickSnap(fits func(*Disk, *Snap) bool) (*Disk, *Snap) {
	d := p.pick(func(d *Disk) bool {
		return !d.Trashed && slices.ContainsFunc(d.Snaps, func(s *Snap) bool { return fits(d, s) })
	})
	if d == nil {
		return nil, nil
	}
	found := d.snap(func(s *Snap) bool { return fits(d, s) })
	return d, found[p.random.IntN(len(found))]
}

// draw makes an operation of a kind, if there is anything to do it to.
func (p *Plan) draw(kind Kind) (Op, bool) {
	op := Op{Kind: kind, Seed: p.random.Uint64()}
	switch kind {
	case Write, Burst:
		op.Size = uint64(4 + p.random.IntN(24))
		op.Disk = p.pick(usable)
	case Reopen, Rest, SnapLimit:
		op.Disk = p.pick(usable)
	case SnapCreate, SnapUnderLoad:
		op.Name = fmt.Sprintf("s%d", p.next())
		op.Disk = p.pick(func(d *Disk) bool { return usable(d) && len(d.Snaps) < mostSnaps })
	case SnapRemove, SnapRename, SnapProtect, SnapUnprotect, Rollback:
		return p.drawSnap(op)
	case Purge:
		op.Disk = p.pick(func(d *Disk) bool { return usable(d) && len(d.Snaps) > 0 && !d.protected() })
	case Grow, Shrink:
		return p.drawSize(op)
	case Rename:
		op.Disk = p.pick(usable)
		op.Name = p.fresh()
	case MetaSet, MetaRemove:
		return p.drawMeta(op)
	case MapOff:
		op.Disk = p.pick(func(d *Disk) bool { return usable(d) && d.ObjectMap })
	case MapOn:
		op.Disk = p.pick(func(d *Disk) bool { return usable(d) && !d.ObjectMap })
	case Create:
		if p.live() >= mostDisks {
			return op, false
		}
		return p.create(), true
	case Clone, Flatten:
		return p.drawClone(op)
	case Remove:
		op.Disk = p.pick(func(d *Disk) bool { return usable(d) && !d.protected() })
		return op, op.Disk != nil && p.live() > 1
	case TrashMove, TrashRestore, MirrorOff, MirrorOn:
		return p.drawLife(op)
	}
	return op, op.Disk != nil
}

// usable says whether an image can be worked with.
func usable(d *Disk) bool { return !d.Trashed }

// alone says whether nothing hangs on the image, and it on nothing.
func alone(d *Disk) bool { return d.Parent == nil && !d.children() }

// protected says whether a snapshot of the image is: it can then not be removed.
func (d *Disk) protected() bool {
	return slices.ContainsFunc(d.Snaps, func(s *Snap) bool { return s.Protected })
}

func (p *Plan) drawSnap(op Op) (Op, bool) {
	fits := map[Kind]func(*Disk, *Snap) bool{
		SnapRemove:    func(_ *Disk, s *Snap) bool { return !s.Protected },
		SnapRename:    func(*Disk, *Snap) bool { return true },
		SnapProtect:   func(_ *Disk, s *Snap) bool { return !s.Protected },
		SnapUnprotect: func(_ *Disk, s *Snap) bool { return s.Protected && s.Children == 0 },
		Rollback:      func(d *Disk, _ *Snap) bool { return d.Parent == nil || p.clones },
	}[op.Kind]
	op.Disk, op.Snap = p.pickSnap(fits)
	if op.Kind == SnapRename {
		op.Name = fmt.Sprintf("r%d", p.next())
	}
	return op, op.Disk != nil
}

// drawSize draws a new size: whole MiB, or any number of sectors.
func (p *Plan) drawSize(op Op) (Op, bool) {
	op.Guest = p.random.IntN(2) == 0
	unit := []uint64{mib, 512}[p.random.IntN(2)]
	share := p.random.Float64()
	op.Disk = p.pick(usable)
	if op.Disk == nil {
		return op, false
	}
	low, high := op.Disk.Size, uint64(op.Disk.Layout.MaxMiB)*mib
	if op.Kind == Shrink {
		low, high = mib, op.Disk.Size
	}
	if high <= low {
		return op, false
	}
	op.Size = max((low+uint64(share*float64(high-low)))/unit*unit, mib)
	return op, op.Size != op.Disk.Size && (op.Size > op.Disk.Size) == (op.Kind == Grow)
}

func (p *Plan) drawMeta(op Op) (Op, bool) {
	key := metaKeys[p.random.IntN(len(metaKeys))]
	op.Name, op.Size = key, 1+p.random.Uint64N(1<<20)
	op.Disk = p.pick(func(d *Disk) bool {
		_, has := d.Meta[key]
		return usable(d) && (has || op.Kind == MetaSet)
	})
	return op, op.Disk != nil
}

func (p *Plan) drawClone(op Op) (Op, bool) {
	if !p.clones {
		return op, false
	}
	if op.Kind == Flatten {
		op.Disk = p.pick(func(d *Disk) bool { return usable(d) && d.Parent != nil })
		return op, op.Disk != nil
	}
	if p.live() >= mostDisks {
		return op, false
	}
	op.Disk, op.Snap = p.pickSnap(func(d *Disk, s *Snap) bool { return d.Mirrored && s.Protected })
	if op.Disk == nil {
		return op, false
	}
	op.Name, op.Place = p.fresh(), op.Disk.Place
	return op, true
}

func (p *Plan) drawLife(op Op) (Op, bool) {
	switch op.Kind {
	case TrashMove:
		op.Disk = p.pick(func(d *Disk) bool { return usable(d) && alone(d) && !d.protected() && d.Mirrored && !p.each[d.Place] })
	case TrashRestore:
		op.Disk = p.pick(func(d *Disk) bool { return d.Trashed })
		op.Name = p.fresh()
	case MirrorOff:
		op.Disk = p.pick(func(d *Disk) bool { return usable(d) && alone(d) && d.Mirrored })
	case MirrorOn:
		op.Disk = p.pick(func(d *Disk) bool { return usable(d) && !d.Mirrored })
	}
	return op, op.Disk != nil
}

// create draws a new image.
func (p *Plan) create() Op {
	op := Op{Kind: Create, Seed: p.random.Uint64(), Name: p.fresh(), Layout: p.random.IntN(len(layouts))}
	op.Place = p.places[p.random.IntN(len(p.places))]
	op.Size = uint64(1+p.random.IntN(layouts[op.Layout].MaxMiB)) * mib
	return op
}

// live counts the images that are not in the trash.
func (p *Plan) live() int {
	n := 0
	for _, d := range p.Disks {
		if !d.Trashed {
			n++
		}
	}
	return n
}

// next answers numbers that no other name of the family has.
func (p *Plan) next() int {
	p.serial++
	return p.serial
}

// fresh draws a name for an image: often one that another image had before, so that the other site meets old and new of a
// name at once.
func (p *Plan) fresh() string {
	if n := len(p.freed); n > 0 && p.random.IntN(2) == 0 {
		return p.freed[p.random.IntN(n)]
	}
	return fmt.Sprintf("%s-%d", p.name, p.next())
}

// took and free keep the list of names that can be used again.
func (p *Plan) took(name string) {
	p.freed = slices.DeleteFunc(p.freed, func(n string) bool { return n == name })
}

func (p *Plan) free(name string) { p.freed = append(p.freed, name) }
