package random

import (
	"fmt"
	"testing"
)

// sequence is what a family does from a seed.
func sequence(seed uint64, number int) []string {
	p := newPlan(seed, number, []int{0, 1, 2}, []bool{false, false, true}, true)
	var said []string
	for range 2000 {
		op := p.Next()
		said = append(said, op.String())
		p.apply(op)
	}
	return said
}

// TestTheSeedRepeatsTheSequence makes families twice from the same seed, and others from other seeds and numbers.
func TestTheSeedRepeatsTheSequence(t *testing.T) {
	first := fmt.Sprint(sequence(7, 1))
	if again := fmt.Sprint(sequence(7, 1)); again != first {
		t.Error("the same seed and number give another sequence")
	}
	if fmt.Sprint(sequence(8, 1)) == first || fmt.Sprint(sequence(7, 2)) == first {
		t.Error("another seed or number gives the same sequence")
	}
}

// TestPlansStayPossible follows many plans and fails for an operation that the images do not allow, for a kind that is
// never drawn, and for two images of one name.
func TestPlansStayPossible(t *testing.T) {
	var drawn [kinds]int
	for seed := range uint64(20) {
		p := newPlan(seed, 0, []int{0, 2}, []bool{false, false, true}, true)
		for range 500 {
			op := p.Next()
			drawn[op.Kind]++
			if why := impossible(op); why != "" {
				t.Fatalf("seed %d: %s: %s", seed, op, why)
			}
			p.apply(op)
			names := map[string]bool{}
			for _, d := range p.Disks {
				if !d.Trashed && names[d.Name] {
					t.Fatalf("seed %d: after %s there are two images %s", seed, op, d.Name)
				}
				names[d.Name] = names[d.Name] || !d.Trashed
			}
		}
		for _, op := range p.ready() {
			p.apply(op)
		}
		for _, d := range p.Disks {
			if d.Trashed || !d.Mirrored {
				t.Errorf("seed %d: %s cannot fail over", seed, d)
			}
		}
	}
	for kind, n := range drawn {
		if n == 0 {
			t.Errorf("%s is never drawn", Kind(kind))
		}
	}
}

// impossible says why Ceph would refuse an operation.
func impossible(op Op) string {
	d := op.Disk
	switch {
	case op.Kind == Create:
	case d == nil:
		return "no image"
	case d.Trashed != (op.Kind == TrashRestore):
		return "in the trash, or not"
	case op.Kind == SnapRemove && op.Snap.Protected, op.Kind == Remove && d.protected(), op.Kind == TrashMove && d.protected():
		return "a snapshot is protected"
	case op.Kind == SnapUnprotect && op.Snap.Children > 0:
		return "clones hang on the snapshot"
	case op.Kind == Grow && op.Size <= d.Size, op.Kind == Shrink && (op.Size >= d.Size || op.Size == 0):
		return "not a size of that direction"
	case op.Kind == Flatten && d.Parent == nil:
		return "no parent"
	}
	return ""
}
