package mirror

import (
	"fmt"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// Mode says which images of a pool or namespace are mirrored (cls::rbd::MirrorMode).
type Mode uint32

// The modes.
const (
	ModeDisabled Mode = 0
	ModeImage    Mode = 1 // those that are enabled one by one
	ModePool     Mode = 2 // those with FeatureJournaling
	ModeInitOnly Mode = 3 // pool is set up, namespaces mirror (Ceph 20)
)

// String is the mode in the words of "rbd mirror pool info".
func (m Mode) String() string {
	switch m {
	case ModeDisabled:
		return "disabled"
	case ModeImage:
		return "image"
	case ModePool:
		return "pool"
	case ModeInitOnly:
		return "init-only"
	}
	return fmt.Sprintf("unknown (%d)", uint32(m))
}

// GetMode asks for the mode; ENOENT means ModeDisabled.
func GetMode() class.Query[Mode] {
	return query("mirror_mode_get", nil, func(d *encoding.Decoder) Mode { return Mode(d.U32()) })
}

// SetMode changes the mode: EINVAL if the pool has no mirror uuid, EBUSY when
// disabling while there are peers. Disabling forgets the mirror uuid.
func SetMode(m Mode) class.Call {
	return call("mirror_mode_set", func(e *encoding.Encoder) { e.U32(uint32(m)) })
}

// GetUUID asks for the pool's mirror uuid; ENOENT if it has none.
func GetUUID() class.Query[string] { return query("mirror_uuid_get", nil, readText) }

// SetUUID stores the pool's mirror uuid; EINVAL while mirroring is enabled.
func SetUUID(uuid string) class.Call { return call("mirror_uuid_set", text(uuid)) }

// GetRemoteNamespace asks which namespace of the remote pool this one mirrors.
// Before Ceph 20: EOPNOTSUPP; ENOENT if none is set. Either means the one with the
// same name.
func GetRemoteNamespace() class.Query[string] {
	return query("mirror_remote_namespace_get", nil, readText)
}

// SetRemoteNamespace stores which namespace of the remote pool this one mirrors
// (Ceph 20); EINVAL while mirroring is enabled.
func SetRemoteNamespace(name string) class.Call {
	return call("mirror_remote_namespace_set", text(name))
}

// Direction says which way a peer's data flow (cls::rbd::MirrorPeerDirection).
type Direction uint8

// The directions, seen from the cluster that has the record.
const (
	DirectionRX   Direction = 0 // we receive from the peer
	DirectionTX   Direction = 1 // we send to it: its daemon made the record by itself
	DirectionRXTX Direction = 2
)

// String is the direction in the words of "rbd mirror pool info".
func (d Direction) String() string {
	switch d {
	case DirectionRX:
		return "rx-only"
	case DirectionTX:
		return "tx-only"
	case DirectionRXTX:
		return "rx-tx"
	}
	return "unknown"
}

// Receives tells whether the daemon here replays what the peer has.
func (d Direction) Receives() bool { return d == DirectionRX || d == DirectionRXTX }

// Peer is another cluster with a pool of the same name (cls::rbd::MirrorPeer).
type Peer struct {
	UUID       string // of this record, not of the peer's pool
	Direction  Direction
	SiteName   string
	ClientName string // "client.NAME" to connect as; empty if DirectionTX
	MirrorUUID string // of the peer's pool; empty until its daemon pinged us
	LastSeen   time.Time
}

// Encode appends the record.
func (p Peer) Encode(e *encoding.Encoder) {
	e.Struct(2, 1, func(e *encoding.Encoder) {
		e.String(p.UUID)
		e.String(p.SiteName)
		e.String(p.ClientName)
		e.I64(-1) // a pool id that was never used
		e.U8(uint8(p.Direction))
		e.String(p.MirrorUUID)
		e.Time(p.LastSeen)
	})
}

func readPeer(d *encoding.Decoder) Peer {
	p := Peer{Direction: DirectionRXTX}
	d.Struct(2, func(d *encoding.Decoder, v uint8) {
		p.UUID = d.String()
		p.SiteName = d.String()
		p.ClientName = d.String()
		d.I64()
		if v >= 2 {
			p.Direction = Direction(d.U8())
			p.MirrorUUID = d.String()
			p.LastSeen = d.Time()
		}
	})
	return p
}

// DecodePeer reads the record.
func DecodePeer(b []byte) (Peer, error) { return decode("mirror.Peer", b, readPeer) }

// PeerList asks for all peers.
func PeerList() class.Query[[]Peer] {
	return query("mirror_peer_list", nil, func(d *encoding.Decoder) []Peer { return readList(d, 6, readPeer) })
}

// PeerPing tells the remote pool that the site with that name and mirror uuid
// mirrors from it. The class finds the peer record by name or uuid, notes the time
// and the uuid, and makes a DirectionTX record if there is none. EINVAL while
// mirroring is disabled there, EOPNOTSUPP before Ceph 15.
func PeerPing(siteName, mirrorUUID string) class.Call {
	return call("mirror_peer_ping", func(e *encoding.Encoder) {
		e.String(siteName)
		e.String(mirrorUUID)
		e.U8(uint8(DirectionTX))
	})
}

// PeerAdd stores a new peer: EEXIST if there is one of that site, ESTALE if the
// record's uuid is taken, EINVAL while mirroring is disabled.
func PeerAdd(p Peer) class.Call { return call("mirror_peer_add", p.Encode) }

// PeerRemove deletes a peer by the record's uuid.
func PeerRemove(uuid string) class.Call { return call("mirror_peer_remove", text(uuid)) }

// PeerSetClient changes the name to connect as.
func PeerSetClient(uuid, clientName string) class.Call {
	return call("mirror_peer_set_client", text(uuid, clientName))
}

// PeerSetSite changes the peer's site name.
func PeerSetSite(uuid, siteName string) class.Call {
	return call("mirror_peer_set_cluster", text(uuid, siteName))
}

// PeerSetDirection changes the direction.
func PeerSetDirection(uuid string, direction Direction) class.Call {
	return call("mirror_peer_set_direction", func(e *encoding.Encoder) {
		e.String(uuid)
		e.U8(uint8(direction))
	})
}
