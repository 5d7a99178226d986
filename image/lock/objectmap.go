package lock

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// objectMapRequest is the lock on the head's object map: without cookie and tag,
// so that a client has it once, whatever handles it has.
var objectMapRequest = cls.Request{Name: cls.RBDName, Type: cls.Exclusive}

// LockObjectMap takes the lock that librbd keeps on the object map of the image's
// head, and breaks it if another client has it. That is safe only while the
// image's exclusive lock is held: then any other holder is a dead owner of that
// one, and fenced (src/librbd/object_map/LockRequest.cc). ENOENT if there is no
// object map.
func LockObjectMap(ctx context.Context, io rados.IOContext, imageID string) error { //nolint:revive // lock.ObjectMap would read as a type
	object := "rbd_object_map." + imageID
	for attempt := 0; ; attempt++ {
		var op rados.WriteOp
		op.AssertExists()
		op.Exec(cls.Lock(objectMapRequest))
		err := io.Write(ctx, object, &op)
		switch {
		case err == nil, errors.Is(err, syscall.EEXIST):
			return nil
		case !errors.Is(err, syscall.EBUSY):
			return fmt.Errorf("lock the object map: %w", err)
		case attempt == 2:
			return fmt.Errorf("lock the object map: somebody takes it as often as it is broken: %w", err)
		}
		info, err := rados.Ask(ctx, io, object, cls.GetInfo(cls.RBDName))
		if err != nil {
			return fmt.Errorf("lock the object map: %w", err)
		}
		for _, o := range info.Lockers {
			err := rados.Tell(ctx, io, object, cls.Break(cls.RBDName, o.LockerID))
			if err != nil && !errors.Is(err, syscall.ENOENT) {
				return fmt.Errorf("break the object map's lock of %s: %w", o.Entity, err)
			}
		}
	}
}

// UnlockObjectMap gives that lock up. It is no error if we do not have it.
func UnlockObjectMap(ctx context.Context, io rados.IOContext, imageID string) error {
	err := rados.Tell(ctx, io, "rbd_object_map."+imageID, cls.Unlock(cls.RBDName, ""))
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("unlock the object map: %w", err)
	}
	return nil
}
