package journal

import (
	"fmt"
	"maps"
	"slices"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// ClientMeta is what RBD stores in a Client's Data. The set is closed:
// ImageClientMeta, MirrorPeerClientMeta, CLIClientMeta and UnknownClientMeta.
//
//	struct version 2, oldest reader 1
//	  u32 type
//	  fields of that type
type ClientMeta interface {
	encode(e *encoding.Encoder)
	metaType() uint32
}

const (
	clientDataVersion = 2

	imageClientMeta      = 0
	mirrorPeerClientMeta = 1
	cliClientMeta        = 2
)

// ImageClientMeta is the data of the client "", the image itself.
type ImageClientMeta struct {
	TagClass        TagClass // the class of the image's tags
	ResyncRequested bool     // an operator has asked for a new copy of this non-primary image
}

// MirrorPeerState says whether the peer's image was copied already.
type MirrorPeerState uint32

// The states of a mirror peer.
const (
	PeerSyncing   MirrorPeerState = 0 // the initial copy is not complete
	PeerReplaying MirrorPeerState = 1
)

func (s MirrorPeerState) String() string {
	switch s {
	case PeerSyncing:
		return "syncing"
	case PeerReplaying:
		return "replaying"
	}
	return fmt.Sprintf("unknown (%d)", uint32(s))
}

// SyncPoint is a snapshot of the primary that an image sync copies from.
type SyncPoint struct {
	Namespace    SnapshotNamespace
	SnapName     string
	FromSnapName string  // the snapshot that was copied before, "" for none
	ObjectNumber *uint64 // the last object that was copied, with all before it; nil: none yet
}

// MirrorPeerClientMeta is the data of a mirror peer, written by the peer's daemon.
type MirrorPeerClientMeta struct {
	ImageID         string // id of the peer's image in the peer's cluster
	State           MirrorPeerState
	SyncObjectCount uint64            // most objects that were ever to be copied
	SyncPoints      []SyncPoint       // two at most, in the order in which to use them
	SnapSeqs        map[uint64]uint64 // primary's snapshot id → the peer's

	// Covered is ours, behind Ceph's fields: librbd and rbd-mirror skip what follows the
	// fields that they know, and lose it when they write the data.
	Covered Covered
}

// Covered says which entries behind the commit position are in the copy already: all up to
// At, but for operations that were under way there. Without any there is nothing to say.
type Covered struct {
	At   ObjectPosition // the event of the sync point that was copied
	Open []OpTID        // of At's tag
}

// coveredMark is before Covered, lest a field that a later release adds is taken for it.
const coveredMark = "rbd-warden covered"

// CLIClientMeta is the data of `rbd journal` commands.
type CLIClientMeta struct{}

// UnknownClientMeta is data of a type that this package does not know.
type UnknownClientMeta struct {
	Type uint32
	Raw  []byte // what follows the type
}

func (ImageClientMeta) metaType() uint32      { return imageClientMeta }
func (MirrorPeerClientMeta) metaType() uint32 { return mirrorPeerClientMeta }
func (CLIClientMeta) metaType() uint32        { return cliClientMeta }
func (u UnknownClientMeta) metaType() uint32  { return u.Type }

// EncodeClientData encodes m as a Client's Data.
func EncodeClientData(m ClientMeta) []byte {
	var e encoding.Encoder
	e.Struct(clientDataVersion, 1, func(e *encoding.Encoder) {
		e.U32(m.metaType())
		m.encode(e)
	})
	return e.Bytes()
}

// DecodeClientData reads a Client's Data. The error is a *encoding.CorruptError.
// The result shares no memory with b.
func DecodeClientData(b []byte) (ClientMeta, error) {
	d := encoding.NewDecoder("journal.ClientData", b)
	var m ClientMeta
	d.Struct(clientDataVersion, func(d *encoding.Decoder, version uint8) {
		switch t := d.U32(); t {
		case imageClientMeta:
			m = ImageClientMeta{TagClass: TagClass(d.U64()), ResyncRequested: d.Bool()}
		case mirrorPeerClientMeta:
			m = decodeMirrorPeer(d, version)
		case cliClientMeta:
			m = CLIClientMeta{}
		default:
			m = UnknownClientMeta{Type: t, Raw: slices.Clone(d.Rest())}
		}
	})
	if err := d.Err(); err != nil {
		return nil, err
	}
	return m, nil
}

func decodeMirrorPeer(d *encoding.Decoder, version uint8) MirrorPeerClientMeta {
	m := MirrorPeerClientMeta{
		ImageID:         d.String(),
		State:           MirrorPeerState(d.U32()),
		SyncObjectCount: d.U64(),
	}
	const minSyncPointSize = 4 + 4 + 1
	for n := d.Count(minSyncPointSize); n > 0 && d.Err() == nil; n-- {
		m.SyncPoints = append(m.SyncPoints, decodeSyncPoint(d, version))
	}
	if n := d.Count(16); n > 0 {
		m.SnapSeqs = make(map[uint64]uint64, n)
		for range n {
			local := d.U64()
			m.SnapSeqs[local] = d.U64()
		}
	}
	if version == clientDataVersion && d.Err() == nil {
		m.Covered = decodeCovered(d)
	}
	return m
}

func decodeCovered(d *encoding.Decoder) (c Covered) {
	if d.Remaining() <= len(coveredMark) || string(d.Raw(len(coveredMark))) != coveredMark {
		return c
	}
	c.At.Decode(d)
	for range d.Count(8) {
		c.Open = append(c.Open, OpTID(d.U64()))
	}
	return c
}

func decodeSyncPoint(d *encoding.Decoder, version uint8) SyncPoint {
	p := SyncPoint{SnapName: d.String(), FromSnapName: d.String()}
	if d.Bool() {
		n := d.U64()
		p.ObjectNumber = &n
	}
	if version >= 2 {
		p.Namespace.Decode(d)
		p.Namespace.Raw = slices.Clone(p.Namespace.Raw)
	}
	return p
}

func (m ImageClientMeta) encode(e *encoding.Encoder) {
	e.U64(uint64(m.TagClass))
	e.Bool(m.ResyncRequested)
}

func (m MirrorPeerClientMeta) encode(e *encoding.Encoder) {
	e.String(m.ImageID)
	e.U32(uint32(m.State))
	e.U64(m.SyncObjectCount)
	e.U32(uint32(len(m.SyncPoints)))
	for _, p := range m.SyncPoints {
		e.String(p.SnapName)
		e.String(p.FromSnapName)
		e.Bool(p.ObjectNumber != nil)
		if p.ObjectNumber != nil {
			e.U64(*p.ObjectNumber)
		}
		p.Namespace.Encode(e)
	}
	e.U32(uint32(len(m.SnapSeqs)))
	for _, local := range slices.Sorted(maps.Keys(m.SnapSeqs)) {
		e.U64(local)
		e.U64(m.SnapSeqs[local])
	}
	if len(m.Covered.Open) > 0 {
		e.Raw([]byte(coveredMark))
		m.Covered.At.Encode(e)
		e.U32(uint32(len(m.Covered.Open)))
		for _, op := range m.Covered.Open {
			e.U64(uint64(op))
		}
	}
}

func (CLIClientMeta) encode(*encoding.Encoder) {}

func (u UnknownClientMeta) encode(e *encoding.Encoder) { e.Raw(u.Raw) }
