package replay

import (
	"slices"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// EBUSY is what the OSDs and the image answer where the exclusive lock does not hold: an operation that was refused for
// that must never pass for one that had happened before.
func TestALostLockIsNeverTolerated(t *testing.T) {
	for _, op := range []journal.Operation{
		journal.SnapCreate{}, journal.SnapRemove{}, journal.SnapRename{}, journal.SnapProtect{}, journal.SnapUnprotect{},
		journal.SnapRollback{}, journal.SnapLimit{}, journal.Rename{}, journal.Resize{}, journal.Flatten{},
		journal.UpdateFeatures{}, journal.MetadataSet{}, journal.MetadataRemove{},
	} {
		for _, code := range []syscall.Errno{syscall.EBUSY, syscall.EAGAIN, syscall.ETIMEDOUT} {
			if slices.Contains(tolerated(op), code) {
				t.Errorf("%T: %v is taken for success", op, code)
			}
		}
	}
}
