package image

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// MetadataSet sets one pair of the image's metadata ("rbd image-meta set").
func (im *Image) MetadataSet(ctx context.Context, key string, value []byte) (Outcome, error) {
	return im.operate(ctx, fmt.Sprintf("set metadata %q", key), func(ctx context.Context, h *Header) (Outcome, error) {
		if old, ok := h.Metadata[key]; ok && bytes.Equal(old, value) {
			return AlreadyDone, nil
		}
		return Done, im.tellHeader(ctx, rbd.MetadataSet(map[string][]byte{key: value}))
	})
}

// MetadataRemove removes one pair of the image's metadata.
func (im *Image) MetadataRemove(ctx context.Context, key string) (Outcome, error) {
	return im.operate(ctx, fmt.Sprintf("remove metadata %q", key), func(ctx context.Context, h *Header) (Outcome, error) {
		if _, ok := h.Metadata[key]; !ok {
			return AlreadyDone, nil
		}
		err := im.tellHeader(ctx, rbd.MetadataRemove(key))
		if errors.Is(err, syscall.ENOENT) {
			return AlreadyDone, nil
		}
		return Done, err
	})
}

// Rename gives the image another name: a *NameTakenError if another image has it.
//
// The steps are those of src/librbd/operation/RenameRequest.cc: the new name's id object,
// the directory, away with the old name's; but the last two the other way round. At every
// moment one of the names leads to the image, and whoever dies in between leaves the old
// name in the directory, so that the next attempt finds out what else is to go. An id
// object that stays would keep its name from every other image.
func (im *Image) Rename(ctx context.Context, name string) (Outcome, error) {
	return im.operate(ctx, fmt.Sprintf("rename to %q", name), func(ctx context.Context, h *Header) (Outcome, error) {
		old, err := Name(ctx, im.io, h.ID)
		if err != nil {
			return 0, fmt.Errorf("find the old name: %w", err)
		}
		if old == name {
			return AlreadyDone, nil
		}
		if err := im.owned(); err != nil {
			return 0, err
		}
		if err := claimName(ctx, im.io, name, h.ID); err != nil {
			return 0, err
		}
		if err := releaseName(ctx, im.io, old, h.ID); err != nil {
			return 0, err
		}
		err = rados.Tell(ctx, im.io, rbd.DirectoryObject, rbd.DirRenameImage(old, name, h.ID))
		if errors.Is(err, syscall.EEXIST) {
			id, _ := rados.Ask(ctx, im.io, rbd.DirectoryObject, rbd.DirGetID(name))
			return 0, errors.Join(&NameTakenError{Name: name, ID: id}, claimName(ctx, im.io, old, h.ID), releaseName(ctx, im.io, name, h.ID))
		}
		return Done, err
	})
}

// claimName makes the object that leads from a name to an id. It is no error if it
// does so already.
func claimName(ctx context.Context, io rados.IOContext, name, id string) error {
	err := io.Write(ctx, rbd.IDObject(name), new(rados.WriteOp).Create(true).Exec(rbd.SetID(id)))
	if !errors.Is(err, syscall.EEXIST) {
		return err
	}
	holder, err := ID(ctx, io, name)
	switch {
	case err != nil && !errors.Is(err, syscall.ENOENT):
		return err
	case err == nil && holder == id:
		return nil
	}
	return &NameTakenError{Name: name, ID: holder}
}

// releaseName removes the object that leads from a name to an id, if it still
// leads to that one.
func releaseName(ctx context.Context, io rados.IOContext, name, id string) error {
	holder, err := ID(ctx, io, name)
	if errors.Is(err, syscall.ENOENT) || err == nil && holder != id {
		return nil
	}
	if err != nil {
		return err
	}
	return removeObject(ctx, io, rbd.IDObject(name))
}
