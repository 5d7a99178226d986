package mirror

import (
	"fmt"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// ImageMode says how an image is mirrored (cls::rbd::MirrorImageMode).
type ImageMode uint8

// The modes.
const (
	ImageJournal  ImageMode = 0
	ImageSnapshot ImageMode = 1
)

// String is the mode in the words of "rbd info".
func (m ImageMode) String() string {
	switch m {
	case ImageJournal:
		return "journal"
	case ImageSnapshot:
		return "snapshot"
	}
	return fmt.Sprintf("unknown (%d)", uint8(m))
}

// ImageState is where an image is in the life of its mirroring
// (cls::rbd::MirrorImageState).
type ImageState uint8

// The states.
const (
	ImageDisabling ImageState = 0
	ImageEnabled   ImageState = 1
	ImageDisabled  ImageState = 2 // never stored
	ImageCreating  ImageState = 3 // the local copy is being made
)

// String is the state in the words of "rbd info".
func (s ImageState) String() string {
	switch s {
	case ImageDisabling:
		return "disabling"
	case ImageEnabled:
		return "enabled"
	case ImageDisabled:
		return "disabled"
	case ImageCreating:
		return "creating"
	}
	return fmt.Sprintf("unknown (%d)", uint8(s))
}

// Image is the record of a mirrored image (cls::rbd::MirrorImage).
type Image struct {
	Mode     ImageMode
	GlobalID string // the same in all clusters
	State    ImageState
}

// Encode appends the record.
func (i Image) Encode(e *encoding.Encoder) {
	e.Struct(2, 1, func(e *encoding.Encoder) {
		e.String(i.GlobalID)
		e.U8(uint8(i.State))
		e.U8(uint8(i.Mode))
	})
}

func readImage(d *encoding.Decoder) (i Image) {
	d.Struct(2, func(d *encoding.Decoder, v uint8) {
		i.GlobalID = d.String()
		i.State = ImageState(d.U8())
		if v >= 2 {
			i.Mode = ImageMode(d.U8())
		}
	})
	return i
}

// DecodeImage reads the record.
func DecodeImage(b []byte) (Image, error) { return decode("mirror.Image", b, readImage) }

// ImageList lists up to max mirrored images whose ids come after start: image id to
// global id. Page on with the last id, in byte order, until fewer than max come
// back. ENOENT if the pool was never mirrored.
func ImageList(start string, max uint64) class.Query[map[string]string] {
	return query("mirror_image_list", page(start, max), func(d *encoding.Decoder) map[string]string {
		return readMap(d, 4, readText)
	})
}

// ImageGetID asks for the image id that belongs to a global id; ENOENT if there is
// none here.
func ImageGetID(globalID string) class.Query[string] {
	return query("mirror_image_get_image_id", text(globalID), readText)
}

// ImageGet asks for the record of an image; ENOENT if it is not mirrored.
func ImageGet(imageID string) class.Query[Image] {
	return query("mirror_image_get", text(imageID), readImage)
}

// ImageSet stores the record of an image: EEXIST if another image has the global id,
// EINVAL if the image has another global id, ENOENT if it is not mirrored and the
// new state is ImageDisabling.
func ImageSet(imageID string, i Image) class.Call {
	return call("mirror_image_set", func(e *encoding.Encoder) {
		e.String(imageID)
		i.Encode(e)
	})
}

// ImageRemove deletes the record and all statuses of an image: EBUSY unless its state
// is ImageDisabling, ENOENT if it is not mirrored.
func ImageRemove(imageID string) class.Call { return call("mirror_image_remove", text(imageID)) }
