// Package librbd does, through Ceph's own library librbd, what a mirroring daemon
// does to an image of the other cluster: make and remove snapshots. The image's
// writer there has to agree to that (it holds the exclusive lock, and records the
// operation in the journal), which is librbd's business.
//
// librbd's calls hold an OS thread and cannot be taken back. They run in a goroutine
// of their own, so that a call here returns when its context ends; librbd's part then
// ends by itself, at the latest by the timeouts of the connection, and the image is
// closed behind it.
package librbd

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/ceph/go-ceph/rbd"

	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
)

// CreateSnapshot makes a snapshot of the image: EEXIST if there is one of that name,
// ENOENT if there is no such image.
func CreateSnapshot(ctx context.Context, io rados.IOContext, imageID, name string) error {
	return withImage(ctx, io, imageID, "create snapshot "+name, func(image *rbd.Image) error {
		_, err := image.CreateSnapshot(name)
		return err
	})
}

// RemoveSnapshot removes a snapshot of the image: ENOENT if there is none. A removal that
// was cut short is completed: librbd first puts a snapshot into the trash, where its name
// does not find it any more (src/librbd/operation/SnapshotRemoveRequest.cc), and would
// leave it there.
func RemoveSnapshot(ctx context.Context, io rados.IOContext, imageID, name string) error {
	return withImage(ctx, io, imageID, "remove snapshot "+name, func(image *rbd.Image) error {
		err := errno(image.GetSnapshot(name).Remove())
		if !errors.Is(err, syscall.ENOENT) {
			return err
		}
		trashed, lookErr := trashedSnapshots(image, name)
		if lookErr != nil {
			return lookErr
		}
		for _, id := range trashed {
			if err := image.RemoveSnapByID(id); err != nil {
				return fmt.Errorf("snapshot %d in the trash: %w", id, errno(err))
			}
		}
		if len(trashed) > 0 {
			return nil
		}
		return err
	})
}

// trashedSnapshots finds the snapshots in the trash that once had a name.
func trashedSnapshots(image *rbd.Image, name string) ([]uint64, error) {
	snaps, err := image.GetSnapshotNames()
	if err != nil {
		return nil, fmt.Errorf("list snapshots: %w", errno(err))
	}
	var ids []uint64
	for _, s := range snaps {
		kind, err := image.GetSnapNamespaceType(s.Id)
		if err != nil {
			return nil, fmt.Errorf("namespace of snapshot %d: %w", s.Id, errno(err))
		}
		if kind != rbd.SnapNamespaceTypeTrash {
			continue
		}
		original, err := image.GetSnapTrashNamespace(s.Id)
		if err != nil {
			return nil, fmt.Errorf("name of snapshot %d in the trash: %w", s.Id, errno(err))
		}
		if original == name {
			ids = append(ids, s.Id)
		}
	}
	return ids, nil
}

// withImage opens the image for as long as fn takes: an open image is a watcher of
// the header, whom others wait for.
func withImage(ctx context.Context, io rados.IOContext, imageID, op string, fn func(*rbd.Image) error) error {
	fail := func(err error) error {
		return &rados.Error{Op: "librbd: " + op, Pool: io.Pool().Name, Namespace: io.Namespace(), Object: "image " + imageID, Err: err}
	}
	native, ok := librados.Native(io)
	if !ok {
		return fail(errors.New("not a real cluster"))
	}
	release, ok := librados.Hold(io)
	if !ok {
		return fail(syscall.ENOTCONN)
	}
	done := make(chan error, 1)
	go func() {
		defer release()
		image, err := rbd.OpenImageById(native, imageID, rbd.NoSnapshot)
		if err != nil {
			done <- errno(err)
			return
		}
		err = errno(fn(image))
		if closeErr := image.Close(); err == nil && closeErr != nil {
			err = fmt.Errorf("close: %w", errno(closeErr))
		}
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			return fail(err)
		}
		return nil
	case <-ctx.Done():
		return fail(ctx.Err())
	}
}

// errno gives go-ceph's errors as a syscall.Errno.
func errno(err error) error {
	var coded interface{ ErrorCode() int }
	switch {
	case err == nil:
		return nil
	case errors.Is(err, rbd.ErrNotFound):
		return syscall.ENOENT
	case errors.As(err, &coded):
		code := coded.ErrorCode()
		if code < 0 {
			code = -code
		}
		return syscall.Errno(code)
	}
	return err
}
