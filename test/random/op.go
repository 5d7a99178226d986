package random

import (
	"fmt"
	"strings"
)

// Kind is a kind of operation.
type Kind int

// The kinds. Each is one thing that a user or a guest does to an image on the site where it is primary.
const (
	Write         Kind = iota // one after another: writes, discards, write-same, compare-and-write, flushes
	Burst                     // writes side by side
	Reopen                    // the guest closes the image; the next write opens it anew
	SnapCreate                // while nothing is written
	SnapUnderLoad             // while a burst is
	SnapRemove
	SnapRename
	SnapProtect
	SnapUnprotect
	Rollback
	Purge // all snapshots at once
	SnapLimit
	Grow
	Shrink
	Rename
	MetaSet
	MetaRemove
	MapOff // features object-map and fast-diff
	MapOn
	Clone
	Flatten
	Create
	Remove
	TrashMove
	TrashRestore
	MirrorOff // image mode: disable; pool mode: the feature journaling
	MirrorOn
	Rest // nothing for a moment, so that the daemon gets ahead
	kinds
)

var kindNames = [kinds]string{
	"write", "burst", "reopen", "snap create", "snap create under load", "snap rm", "snap rename", "snap protect",
	"snap unprotect", "snap rollback", "snap purge", "snap limit", "grow", "shrink", "rename", "image-meta set",
	"image-meta remove", "object-map off", "object-map on", "clone", "flatten", "create", "rm", "trash mv",
	"trash restore", "mirroring off", "mirroring on", "rest",
}

func (k Kind) String() string { return kindNames[k] }

// weights say how often each kind is drawn.
var weights = [kinds]int{
	Write: 30, Burst: 16, Reopen: 4, SnapCreate: 9, SnapUnderLoad: 4, SnapRemove: 5, SnapRename: 3, SnapProtect: 3,
	SnapUnprotect: 3, Rollback: 3, Purge: 1, SnapLimit: 1, Grow: 3, Shrink: 3, Rename: 3, MetaSet: 4, MetaRemove: 2,
	MapOff: 1, MapOn: 2, Clone: 3, Flatten: 1, Create: 3, Remove: 2, TrashMove: 1, TrashRestore: 4, MirrorOff: 1, MirrorOn: 4,
	Rest: 4,
}

// Op is an operation with all that was drawn for it: nothing is left to chance when it is performed.
type Op struct {
	Kind Kind
	Disk *Disk // nil: none yet
	Snap *Snap
	Name string // of what is made, or the new name
	// Size is in bytes for a new size; for Write and Burst it is how many.
	Size   uint64
	Layout int
	Place  int
	Seed   uint64 // for the guest's own choices
	// Guest: the guest does it through its open image, not a command.
	Guest bool
}

// String is how the log tells of it; equal operations have equal strings.
func (o Op) String() string {
	var b strings.Builder
	b.WriteString(o.Kind.String())
	if o.Disk != nil {
		fmt.Fprintf(&b, " %s", o.Disk)
	}
	if o.Snap != nil {
		fmt.Fprintf(&b, "@%s", o.Snap.Name)
	}
	if o.Name != "" {
		fmt.Fprintf(&b, " %q", o.Name)
	}
	if o.Size != 0 {
		fmt.Fprintf(&b, " %d", o.Size)
	}
	if o.Kind == Create {
		fmt.Fprintf(&b, " %s in %d", layouts[o.Layout].Name, o.Place)
	}
	if o.Guest {
		b.WriteString(" by the guest")
	}
	return b.String()
}
