package mirror

import (
	"slices"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// InstancesList asks rbd_mirror_leader for the instance ids of the pool's daemons.
func InstancesList() class.Query[[]string] {
	return query("mirror_instances_list", nil, func(d *encoding.Decoder) []string { return readList(d, 4, readText) })
}

// InstancesAdd enters a daemon in rbd_mirror_leader.
func InstancesAdd(instanceID string) class.Call {
	return call("mirror_instances_add", text(instanceID))
}

// InstancesRemove deletes a daemon from rbd_mirror_leader.
func InstancesRemove(instanceID string) class.Call {
	return call("mirror_instances_remove", text(instanceID))
}

// UnmappedInstanceID is the instance id of an image that no daemon has.
const UnmappedInstanceID = ""

// ImageMap says which daemon an image is given to (cls::rbd::MirrorImageMap).
type ImageMap struct {
	InstanceID string
	MappedTime time.Time
	Data       []byte // an encoded PolicyData
}

// Encode appends the record.
func (m ImageMap) Encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.String(m.InstanceID)
		e.Time(m.MappedTime)
		e.Blob(m.Data)
	})
}

func readImageMap(d *encoding.Decoder) (m ImageMap) {
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		m.InstanceID = d.String()
		m.MappedTime = d.Time()
		m.Data = slices.Clone(d.Blob())
	})
	return m
}

// DecodeImageMap reads the record.
func DecodeImageMap(b []byte) (ImageMap, error) { return decode("mirror.ImageMap", b, readImageMap) }

// ImageMapList lists up to max entries of rbd_mirror_leader whose global ids come
// after start.
func ImageMapList(start string, max uint64) class.Query[map[string]ImageMap] {
	return query("mirror_image_map_list", page(start, max), func(d *encoding.Decoder) map[string]ImageMap {
		return readMap(d, 6, readImageMap)
	})
}

// ImageMapUpdate stores an entry of rbd_mirror_leader.
func ImageMapUpdate(globalID string, m ImageMap) class.Call {
	return call("mirror_image_map_update", func(e *encoding.Encoder) {
		e.String(globalID)
		m.Encode(e)
	})
}

// ImageMapRemove deletes an entry of rbd_mirror_leader.
func ImageMapRemove(globalID string) class.Call {
	return call("mirror_image_map_remove", text(globalID))
}

// PolicyKind numbers the kinds of policy data.
type PolicyKind uint32

// PolicyNone is the only kind so far: no fields.
const PolicyNone PolicyKind = 0

// PolicyData is what the placement policy keeps with an image
// (rbd::mirror::image_map::PolicyData in src/tools/rbd_mirror/image_map/Types.cc).
type PolicyData struct {
	Kind PolicyKind
	Raw  []byte // fields of kinds that this code does not know
}

// Encode appends the record.
func (p PolicyData) Encode(e *encoding.Encoder) {
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(uint32(p.Kind))
		e.Raw(p.Raw)
	})
}

// Bytes encodes the record by itself, for ImageMap.Data.
func (p PolicyData) Bytes() []byte {
	var e encoding.Encoder
	p.Encode(&e)
	return e.Bytes()
}

// DecodePolicyData reads the record.
func DecodePolicyData(b []byte) (PolicyData, error) {
	return decode("mirror.PolicyData", b, func(d *encoding.Decoder) (p PolicyData) {
		d.Struct(1, func(d *encoding.Decoder, _ uint8) {
			p.Kind = PolicyKind(d.U32())
			p.Raw = slices.Clone(d.Rest())
		})
		return p
	})
}
