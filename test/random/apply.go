package random

import (
	"fmt"
	"maps"
	"slices"
)

// apply notes that an operation has succeeded. Digests are the performer's business.
func (p *Plan) apply(op Op) {
	d := op.Disk
	switch op.Kind {
	case SnapCreate, SnapUnderLoad:
		d.Snaps = append(d.Snaps, &Snap{Name: op.Name, Size: d.Size})
	case SnapRemove:
		d.Snaps = slices.DeleteFunc(d.Snaps, func(s *Snap) bool { return s == op.Snap })
	case SnapRename:
		op.Snap.Name = op.Name
	case SnapProtect, SnapUnprotect:
		op.Snap.Protected = op.Kind == SnapProtect
	case Rollback:
		d.Size = op.Snap.Size
	case Purge:
		d.Snaps = nil
	case Grow, Shrink:
		d.Size = op.Size
	case Rename:
		p.rename(d, op.Name)
	case MetaSet:
		d.Meta[op.Name] = metaValue(op)
	case MetaRemove:
		delete(d.Meta, op.Name)
	case MapOff, MapOn:
		d.ObjectMap = op.Kind == MapOn
		d.remapped = d.remapped || d.ObjectMap
	case MirrorOff, MirrorOn:
		d.Mirrored = op.Kind == MirrorOn
	case Create, Clone:
		p.add(op)
	case Flatten:
		d.ParentSnap.Children--
		d.Parent, d.ParentSnap = nil, nil
	case Remove:
		if d.Parent != nil {
			d.ParentSnap.Children--
		}
		p.free(d.Name)
		p.Disks = slices.DeleteFunc(p.Disks, func(x *Disk) bool { return x == d })
	case TrashMove:
		d.Trashed, d.Mirrored = true, false
		p.free(d.Name)
	case TrashRestore:
		// In pool mode an image with a journal is mirrored as soon as it is back.
		d.Trashed, d.Mirrored = false, true
		d.Name = op.Name
		p.took(op.Name)
	}
}

func (p *Plan) rename(d *Disk, name string) {
	p.free(d.Name)
	d.Name = name
	p.took(name)
}

// add makes the image of a Create or Clone.
func (p *Plan) add(op Op) {
	d := &Disk{Name: op.Name, Place: op.Place, Meta: map[string]string{}, Mirrored: true, serial: p.next()}
	if op.Kind == Create {
		d.Layout, d.Size = layouts[op.Layout], op.Size
	} else {
		d.Layout, d.Size = op.Disk.Layout, op.Snap.Size
		d.Parent, d.ParentSnap = op.Disk, op.Snap
		d.Meta = maps.Clone(op.Disk.Meta) // librbd copies it
		op.Snap.Children++
	}
	d.ObjectMap = d.Layout.ObjectMap
	p.took(op.Name)
	p.Disks = append(p.Disks, d)
}

// metaValue is the value of a MetaSet: what the option takes, or text with everything in it.
func metaValue(op Op) string {
	if op.Name == metaKeys[0] {
		return fmt.Sprint(op.Size)
	}
	return fmt.Sprintf("value %d, »grün«", op.Size)
}

// ready lists what brings every image to where it can fail over: out of the trash, and mirrored.
func (p *Plan) ready() []Op {
	var ops []Op
	for _, d := range p.Disks {
		if d.Trashed {
			ops = append(ops, Op{Kind: TrashRestore, Disk: d, Name: fmt.Sprintf("%s-%d", p.name, p.next())})
		} else if !d.Mirrored {
			ops = append(ops, Op{Kind: MirrorOn, Disk: d})
		}
	}
	return ops
}
