package imagesync

import (
	"fmt"
	"syscall"
)

// SyncPointError says that the snapshot that was being copied from is gone. What was
// copied since the last checkpoint is not to be trusted; the next Run starts over
// with a new sync point.
type SyncPointError struct {
	Name string
}

func (e *SyncPointError) Error() string {
	return fmt.Sprintf("sync point %s was removed from the remote image while it was being copied", e.Name)
}

// Unwrap is ESTALE.
func (e *SyncPointError) Unwrap() error { return syscall.ESTALE }

// VanishedError says that a state of a remote object is listed but cannot be read.
type VanishedError struct {
	Snap uint64 // the remote snapshot that it was read at
}

func (e *VanishedError) Error() string {
	return fmt.Sprintf("the object's state at snapshot %d is listed but does not exist", e.Snap)
}

// Unwrap is ENOENT.
func (e *VanishedError) Unwrap() error { return syscall.ENOENT }

// ShortReadError says that a sparse read's bytes do not fit its extents, or its
// extents what was asked for.
type ShortReadError struct {
	Offset, Length uint64 // what was asked for
	Reason         string
}

func (e *ShortReadError) Error() string {
	return fmt.Sprintf("sparse read of %d bytes at %d: %s", e.Length, e.Offset, e.Reason)
}

// Unwrap is EIO.
func (e *ShortReadError) Unwrap() error { return syscall.EIO }

// LayoutError says that the local image's objects are cut in another way than the
// remote's, so that they cannot be copied one to one.
type LayoutError struct {
	Local, Remote string
}

func (e *LayoutError) Error() string {
	return fmt.Sprintf("local image has %s, remote image %s: recreate the local image", e.Local, e.Remote)
}

// Unwrap is EINVAL.
func (e *LayoutError) Unwrap() error { return syscall.EINVAL }

// ObjectError says which object could not be copied.
type ObjectError struct {
	Object string // the remote object's name
	Err    error
}

func (e *ObjectError) Error() string { return fmt.Sprintf("copy object %s: %v", e.Object, e.Err) }

func (e *ObjectError) Unwrap() error { return e.Err }
