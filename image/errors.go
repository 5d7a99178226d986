package image

import (
	"errors"
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
)

// ErrNotOwner says that the exclusive lock does not hold (any more, or at the
// moment), so nothing was sent; the lock tells why. It is EBUSY, as what the OSD
// answers when an asserted lock does not hold.
var ErrNotOwner = fmt.Errorf("the exclusive lock does not hold: %w", syscall.EBUSY)

// ErrClosed says that the Image was closed.
var ErrClosed = errors.New("image is closed")

// ParentError says that the parent of a clone, or of one of its ancestors, cannot be
// read.
type ParentError struct {
	ImageID string // of the clone
	Parent  rbd.ParentSpec
	NoPool  bool // the parent's pool does not exist
	Err     error
}

func (e *ParentError) Error() string {
	where := fmt.Sprintf("pool %d", e.Parent.Pool)
	if e.Parent.Namespace != "" {
		where += ", namespace " + e.Parent.Namespace
	}
	return fmt.Sprintf("parent of image %s (snapshot %d of image %s in %s): %v", e.ImageID, e.Parent.Snap, e.Parent.ImageID, where, e.Err)
}

func (e *ParentError) Unwrap() error { return e.Err }

// PrimaryError says that an image is primary here: whoever replicates must not
// write it.
type PrimaryError struct{ ImageID string }

func (e *PrimaryError) Error() string {
	return fmt.Sprintf("image %s is primary in this cluster", e.ImageID)
}

// FeatureError says that an image has features that a writer would have to know.
type FeatureError struct {
	ImageID string
	Missing rbd.Features // needed for what was asked, but off
	Unknown rbd.Features
}

func (e *FeatureError) Error() string {
	if e.Missing != 0 {
		return fmt.Sprintf("image %s lacks the features %v", e.ImageID, e.Missing)
	}
	return fmt.Sprintf("image %s has the features %v, which are not supported", e.ImageID, e.Unknown)
}

// NameTakenError says that another image has the name.
type NameTakenError struct {
	Name string
	ID   string // of the image that has it; empty if it is only half there
}

func (e *NameTakenError) Error() string {
	return fmt.Sprintf("the name %q belongs to another image (id %q): rename or remove that one", e.Name, e.ID)
}

// IDTakenError says that the image id is in use.
type IDTakenError struct{ ID string }

func (e *IDTakenError) Error() string { return fmt.Sprintf("image id %s is in use", e.ID) }

// ProtectedError says that a snapshot cannot be removed because it is protected.
type ProtectedError struct{ Name string }

func (e *ProtectedError) Error() string {
	return fmt.Sprintf("snapshot %q is protected", e.Name)
}

// ChildrenError says that clones hang on what was to be removed or unprotected.
type ChildrenError struct {
	Snapshot string
	Pool     string   // of the clones
	Children []string // image ids
}

func (e *ChildrenError) Error() string {
	return fmt.Sprintf("snapshot %q has clones in pool %q: images %q", e.Snapshot, e.Pool, e.Children)
}
