package mirror

import (
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/lock"
)

// StatusState is what a daemon does with an image
// (cls::rbd::MirrorImageStatusState).
type StatusState uint8

// The states.
const (
	StatusUnknown        StatusState = 0
	StatusError          StatusState = 1
	StatusSyncing        StatusState = 2
	StatusStartingReplay StatusState = 3
	StatusReplaying      StatusState = 4
	StatusStoppingReplay StatusState = 5
	StatusStopped        StatusState = 6
)

// String is the state in the words of "rbd mirror image status".
func (s StatusState) String() string {
	switch s {
	case StatusUnknown:
		return "unknown"
	case StatusError:
		return "error"
	case StatusSyncing:
		return "syncing"
	case StatusStartingReplay:
		return "starting_replay"
	case StatusReplaying:
		return "replaying"
	case StatusStoppingReplay:
		return "stopping_replay"
	case StatusStopped:
		return "stopped"
	}
	return fmt.Sprintf("unknown (%d)", uint8(s))
}

// LocalUUID stands for the site whose cluster has the record.
const LocalUUID = ""

// Status is what one site's daemon says of an image
// (cls::rbd::MirrorImageSiteStatus).
type Status struct {
	MirrorUUID  string // of the site; LocalUUID for the one here
	State       StatusState
	Description string
	LastUpdate  time.Time // the OSD's clock when it was written; ignored when writing
	Up          bool      // the writer watches rbd_mirroring; ignored when writing
}

// String is the status in the words of "rbd mirror image status".
func (s Status) String() string {
	if s.Up {
		return "up+" + s.State.String()
	}
	return "down+" + s.State.String()
}

// Encode appends the record: version 1 for the local site, 2 with the mirror uuid.
func (s Status) Encode(e *encoding.Encoder) {
	version := uint8(2)
	if s.MirrorUUID == LocalUUID {
		version = 1
	}
	e.Struct(version, version, func(e *encoding.Encoder) { s.encodeFields(e, version) })
}

func (s Status) encodeFields(e *encoding.Encoder, version uint8) {
	if version >= 2 {
		e.String(s.MirrorUUID)
	}
	e.U8(uint8(s.State))
	e.String(s.Description)
	e.Time(s.LastUpdate)
	e.Bool(s.Up)
}

func (s *Status) readFields(d *encoding.Decoder, version uint8) {
	if version >= 2 {
		s.MirrorUUID = d.String()
	}
	s.State = StatusState(d.U8())
	s.Description = d.String()
	s.LastUpdate = d.Time()
	s.Up = d.Bool()
}

func readStatus(d *encoding.Decoder) (s Status) {
	d.Struct(2, func(d *encoding.Decoder, v uint8) { s.readFields(d, v) })
	return s
}

// DecodeStatus reads the record.
func DecodeStatus(b []byte) (Status, error) { return decode("mirror.Status", b, readStatus) }

// StoredStatus is a status as rbd_mirroring has it, with its writer
// (cls::rbd::MirrorImageSiteStatusOnDisk).
type StoredStatus struct {
	Writer  lock.EntityName
	Address lock.EntityAddr
	Status
}

// Encode appends the record.
func (s StoredStatus) Encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		s.Writer.Encode(e)
		s.Address.Encode(e)
	})
	s.Status.Encode(e)
}

// DecodeStoredStatus reads the record.
func DecodeStoredStatus(b []byte) (StoredStatus, error) {
	return decode("mirror.StoredStatus", b, func(d *encoding.Decoder) (s StoredStatus) {
		d.Struct(1, func(d *encoding.Decoder, _ uint8) {
			s.Writer = lock.DecodeEntityName(d)
			s.Address = lock.DecodeEntityAddr(d)
		})
		s.Status = readStatus(d)
		return s
	})
}

// ImageStatus is what all sites say of an image (cls::rbd::MirrorImageStatus).
type ImageStatus struct {
	Sites []Status // the local one, if there is one, comes first
}

// Local finds the local site's status.
func (s ImageStatus) Local() (Status, bool) {
	for _, site := range s.Sites {
		if site.MirrorUUID == LocalUUID {
			return site, true
		}
	}
	return Status{}, false
}

// Encode appends the record. Its version 1 had the local status only, so that one
// stands first even if there is none.
func (s ImageStatus) Encode(e *encoding.Encoder) {
	e.Struct(2, 1, func(e *encoding.Encoder) {
		local, ok := s.Local()
		local.encodeFields(e, 1)
		e.Bool(ok)
		n := len(s.Sites)
		if ok {
			n--
		}
		e.U32(uint32(n))
		for _, site := range s.Sites {
			if site.MirrorUUID != LocalUUID {
				site.encodeFields(e, 2)
			}
		}
	})
}

func readImageStatus(d *encoding.Decoder) (s ImageStatus) {
	d.Struct(2, func(d *encoding.Decoder, v uint8) {
		var local Status
		local.readFields(d, 1)
		hasLocal, remotes := true, 0
		if v >= 2 {
			hasLocal = d.Bool()
			remotes = d.Count(18)
		}
		if hasLocal {
			s.Sites = append(s.Sites, local)
		}
		for i := 0; i < remotes && d.Err() == nil; i++ {
			var site Status
			site.readFields(d, 2)
			s.Sites = append(s.Sites, site)
		}
	})
	return s
}

// DecodeImageStatus reads the record.
func DecodeImageStatus(b []byte) (ImageStatus, error) {
	return decode("mirror.ImageStatus", b, readImageStatus)
}

// StatusSet stores what the site s.MirrorUUID says of the image. The class adds the
// time, and the calling client as the writer.
func StatusSet(globalID string, s Status) class.Call {
	return call("mirror_image_status_set", func(e *encoding.Encoder) {
		e.String(globalID)
		s.Encode(e)
	})
}

// StatusRemove deletes the statuses that all sites have of the image.
func StatusRemove(globalID string) class.Call {
	return call("mirror_image_status_remove", text(globalID))
}

// StatusKey is the omap key of what one site says of an image, for who wants to
// remove that alone.
func StatusKey(globalID, mirrorUUID string) string {
	if mirrorUUID == LocalUUID {
		return "status_global_" + globalID
	}
	return "remote_status_global_" + globalID + "_" + mirrorUUID
}

// StatusGet asks for the statuses of an image; ENOENT if nobody says anything.
func StatusGet(globalID string) class.Query[ImageStatus] {
	return query("mirror_image_status_get", text(globalID), readImageStatus)
}

// ImageStatuses is the answer to StatusList.
type ImageStatuses struct {
	Images   map[string]Image       // by image id
	Statuses map[string]ImageStatus // by image id; only of images that have any
}

// StatusList lists the records and statuses of up to max images whose ids come after
// start.
func StatusList(start string, max uint64) class.Query[ImageStatuses] {
	return query("mirror_image_status_list", page(start, max), func(d *encoding.Decoder) ImageStatuses {
		images := readMap(d, 6, readImage)
		return ImageStatuses{Images: images, Statuses: readMap(d, 6, readImageStatus)}
	})
}

// StatusSummary counts the images by state, as "rbd mirror pool status" does; peers
// are those of PeerList.
func StatusSummary(peers []Peer) class.Query[map[StatusState]int32] {
	return query("mirror_image_status_get_summary", func(e *encoding.Encoder) {
		e.U32(uint32(len(peers)))
		for _, p := range peers {
			p.Encode(e)
		}
	}, func(d *encoding.Decoder) map[StatusState]int32 {
		n := d.Count(5)
		m := make(map[StatusState]int32, n)
		for i := 0; i < n && d.Err() == nil; i++ {
			s := StatusState(d.U8())
			m[s] = d.I32()
		}
		return m
	})
}

// StatusRemoveDown deletes the statuses whose writers do not watch rbd_mirroring.
func StatusRemoveDown() class.Call { return call("mirror_image_status_remove_down", nil) }

// Instance is the client that wrote an image's local status.
type Instance struct {
	Name    lock.EntityName
	Address lock.EntityAddr
}

// InstanceGet asks which client replays the image here: ENOENT if none has said so,
// ESTALE if it does not watch any more.
func InstanceGet(globalID string) class.Query[Instance] {
	return query("mirror_image_instance_get", text(globalID), readInstance)
}

// InstanceList asks for up to max images whose ids come after start, and are being
// replayed, by which client.
func InstanceList(start string, max uint64) class.Query[map[string]Instance] {
	return query("mirror_image_instance_list", page(start, max), func(d *encoding.Decoder) map[string]Instance {
		return readMap(d, 10, readInstance)
	})
}

func readInstance(d *encoding.Decoder) Instance {
	name := lock.DecodeEntityName(d)
	return Instance{Name: name, Address: lock.DecodeEntityAddr(d)}
}
