package harness

// #include <stdlib.h>
// #include <rbd/librbd.h>
import "C"

import (
	"unsafe"

	"github.com/ceph/go-ceph/rados"
)

// openSnapshot opens an image, or a snapshot of it if snap is not empty, for reading.
func openSnapshot(ioctx *rados.IOContext, name, snap string) (*disk, error) {
	d := &disk{}
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	var at *C.char
	if snap != "" {
		at = C.CString(snap)
		defer C.free(unsafe.Pointer(at))
	}
	return d, rbdError("open "+name+"@"+snap, C.rbd_open_read_only(C.rados_ioctx_t(ioctx.Pointer()), text, &d.image, at))
}

// renameImage renames an image, which may be open.
func renameImage(ioctx *rados.IOContext, from, to string) error {
	a, b := C.CString(from), C.CString(to)
	defer C.free(unsafe.Pointer(a))
	defer C.free(unsafe.Pointer(b))
	return rbdError("rename", C.rbd_rename(C.rados_ioctx_t(ioctx.Pointer()), a, b))
}

// writeZeroes makes a range read as zeros, whatever the granularity of discards is.
func (d *disk) writeZeroes(at, size int) error {
	d.note("write zeroes", at, size)
	return rbdError("write_zeroes", C.int(C.rbd_write_zeroes(d.image, C.uint64_t(at), C.size_t(size), 0, 0)))
}

// objectSize is the size of the image's data objects in bytes.
func (d *disk) objectSize() (int, error) {
	var info C.rbd_image_info_t
	err := rbdError("stat", C.rbd_stat(d.image, &info, C.sizeof_rbd_image_info_t))
	return int(info.obj_size), err
}

func (d *disk) snapCreate(name string) error {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	return rbdError("snap create", C.rbd_snap_create(d.image, text))
}

func (d *disk) snapRemove(name string) error {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	return rbdError("snap remove", C.rbd_snap_remove(d.image, text))
}

func (d *disk) snapRename(from, to string) error {
	a, b := C.CString(from), C.CString(to)
	defer C.free(unsafe.Pointer(a))
	defer C.free(unsafe.Pointer(b))
	return rbdError("snap rename", C.rbd_snap_rename(d.image, a, b))
}

func (d *disk) snapProtect(name string) error {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	return rbdError("snap protect", C.rbd_snap_protect(d.image, text))
}

func (d *disk) snapUnprotect(name string) error {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	return rbdError("snap unprotect", C.rbd_snap_unprotect(d.image, text))
}

func (d *disk) snapRollback(name string) error {
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	return rbdError("snap rollback", C.rbd_snap_rollback(d.image, text))
}

// snapLimit sets how many snapshots the image may have.
func (d *disk) snapLimit(limit uint64) error {
	return rbdError("snap limit", C.rbd_snap_set_limit(d.image, C.uint64_t(limit)))
}

// features are the image's feature bits.
func (d *disk) features() (uint64, error) {
	var mask C.uint64_t
	err := rbdError("features", C.rbd_get_features(d.image, &mask))
	return uint64(mask), err
}

// setFeatures enables or disables features.
func (d *disk) setFeatures(mask uint64, enabled bool) error {
	var on C.uint8_t
	if enabled {
		on = 1
	}
	return rbdError("features", C.rbd_update_features(d.image, C.uint64_t(mask), on))
}

func (d *disk) metadataSet(key, value string) error {
	a, b := C.CString(key), C.CString(value)
	defer C.free(unsafe.Pointer(a))
	defer C.free(unsafe.Pointer(b))
	return rbdError("metadata set", C.rbd_metadata_set(d.image, a, b))
}

func (d *disk) metadataRemove(key string) error {
	text := C.CString(key)
	defer C.free(unsafe.Pointer(text))
	return rbdError("metadata remove", C.rbd_metadata_remove(d.image, text))
}

// noLimit is the snapshot limit of an image that has none.
const noLimit = ^uint64(0)

// limit is how many snapshots the image may have.
func (d *disk) limit() (uint64, error) {
	var limit C.uint64_t
	err := rbdError("snap limit", C.rbd_snap_get_limit(d.image, &limit))
	return uint64(limit), err
}
