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

// RemoveSnapshot removes a snapshot of the image: ENOENT if there is none.
func RemoveSnapshot(ctx context.Context, io rados.IOContext, imageID, name string) error {
	return withImage(ctx, io, imageID, "remove snapshot "+name, func(image *rbd.Image) error {
		return image.GetSnapshot(name).Remove()
	})
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
