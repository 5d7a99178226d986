package rbd

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/rbdwarden/rbdwarden/ceph"
)

// Names of the objects that a pool (and namespace) with images has once.
// (src/include/rbd_types.h)
const (
	DirectoryObject = "rbd_directory"
	ChildrenObject  = "rbd_children"
	TrashObject     = "rbd_trash"
	InfoObject      = "rbd_info"
	NamespaceObject = "rbd_namespace" // in the default namespace only
	MirroringObject = "rbd_mirroring"
)

// LockName is the name of the image lock on headers and object maps, for cls_lock.
const LockName = "rbd_lock"

// MaxImageIDLength is the longest image id in bytes (RBD_MAX_IMAGE_ID_LENGTH).
const MaxImageIDLength = 14

// IDObject is the object that holds the id of the image with that name.
func IDObject(name string) string { return "rbd_id." + name }

// HeaderObject is the image's header.
func HeaderObject(id string) string { return "rbd_header." + id }

// ObjectMapObject is the object map of the image, or of its snapshot if snap is
// not ceph.NoSnap.
func ObjectMapObject(id string, snap ceph.SnapID) string {
	if snap == ceph.NoSnap {
		return "rbd_object_map." + id
	}
	return fmt.Sprintf("rbd_object_map.%s.%016x", id, uint64(snap))
}

// ObjectPrefix is the prefix that a new image's data objects get. pool is the
// header's pool when the data live in another one, else negative.
// (src/librbd/image/CreateRequest.cc)
func ObjectPrefix(id string, pool int64) string {
	if pool < 0 {
		return "rbd_data." + id
	}
	return "rbd_data." + strconv.FormatInt(pool, 10) + "." + id
}

// DataObject is the name of data object number of the image with that prefix
// (Header.ObjectPrefix). (src/librbd/ImageCtx.cc)
func DataObject(prefix string, number uint64) string {
	return fmt.Sprintf("%s.%016x", prefix, number)
}

// DataObjectNumber is the inverse of DataObject; false if name is not a data
// object of that prefix.
func DataObjectNumber(prefix, name string) (uint64, bool) {
	digits, ok := strings.CutPrefix(name, prefix+".")
	if !ok || len(digits) != 16 {
		return 0, false
	}
	n, err := strconv.ParseUint(digits, 16, 64)
	return n, err == nil
}

// SnapshotKey is the header's omap key of a snapshot's record, a HeaderSnapshot.
func SnapshotKey(id ceph.SnapID) string { return fmt.Sprintf("snapshot_%016x", uint64(id)) }

// MetadataKeyPrefix starts the header's omap keys of image metadata; the rest is
// the key that "rbd image-meta" shows.
const MetadataKeyPrefix = "metadata_"
