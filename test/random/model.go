package random

import (
	"fmt"
	"slices"

	"github.com/rbdwarden/rbdwarden/test/harness"
)

// Place is a mirrored pool or namespace as the operations see it.
type Place struct {
	Pool *harness.Pool
	// Each says that images are enabled one by one.
	Each bool
}

// Layout is a make of images: arguments of rbd create, and what they mean for the operations.
type Layout struct {
	Name  string
	Flags []string
	// ObjectMap says that such an image begins with the features object-map and fast-diff.
	ObjectMap bool
	// MaxMiB bounds the size where objects are small, so that no image has thousands of them.
	MaxMiB int
}

// layouts are the makes that images are created in.
var layouts = []Layout{
	{Name: "plain", ObjectMap: true, MaxMiB: 20},
	{Name: "small-objects", Flags: []string{"--object-size", "64K"}, ObjectMap: true, MaxMiB: 8},
	{Name: "striped", Flags: []string{"--object-size", "1M", "--stripe-unit", "64K", "--stripe-count", "3"}, ObjectMap: true, MaxMiB: 12},
	{Name: "small-journal", Flags: []string{"--journal-splay-width", "7", "--journal-object-size", "128K"}, ObjectMap: true, MaxMiB: 12},
	{Name: "no-object-map", Flags: []string{"--object-size", "2M"}, MaxMiB: 16},
	{Name: "tiny-objects", Flags: []string{"--object-size", "8K"}, ObjectMap: true, MaxMiB: 2},
}

// Snap is a snapshot that an image must have.
type Snap struct {
	Name      string
	Size      uint64 // bytes
	Protected bool
	Digest    harness.Digest
	// Children counts clones that hang on it.
	Children int
}

// Disk is an image as it must be.
type Disk struct {
	Name      string
	Place     int // index into the run's places
	Layout    Layout
	Size      uint64 // bytes
	Snaps     []*Snap
	Meta      map[string]string
	ObjectMap bool
	// Mirrored: the other site must have it, too. Else it must not.
	Mirrored bool
	// Trashed: it is in the trash, and the other site must not have it.
	Trashed bool
	// Parent is what it was cloned from, nil for an image that hangs on nothing.
	Parent     *Disk
	ParentSnap *Snap
	// Digest is what it contains while no writer has it open.
	Digest harness.Digest

	faults map[string][]string // by snapshot: what was wrong with librbd's own object map before a failover
	// remapped: the object map was switched on when there were data.
	remapped bool

	serial int             // distinguishes images of one name
	id     string          // of an image in the trash
	writer *harness.Writer // open on the family's site, or nil
}

// snap finds a snapshot that fits, or nil.
func (d *Disk) snap(fits func(*Snap) bool) []*Snap {
	var found []*Snap
	for _, s := range d.Snaps {
		if fits(s) {
			found = append(found, s)
		}
	}
	return found
}

// children says whether clones hang on any of its snapshots.
func (d *Disk) children() bool {
	return slices.ContainsFunc(d.Snaps, func(s *Snap) bool { return s.Children > 0 })
}

// String names the image for the log.
func (d *Disk) String() string { return fmt.Sprintf("%s#%d", d.Name, d.serial) }
