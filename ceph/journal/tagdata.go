package journal

import (
	"fmt"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// The mirror uuids that are not a peer's (librbd::Journal::LOCAL_MIRROR_UUID,
// ORPHAN_MIRROR_UUID).
const (
	LocalMirrorUUID  = ""         // the cluster that the journal is in
	OrphanMirrorUUID = "<orphan>" // demoted: nobody's, until somebody promotes
)

// TagPredecessor says where the tag before this one ended, in the journal of
// whoever owned it.
type TagPredecessor struct {
	MirrorUUID  string // owner of the predecessor
	CommitValid bool   // Tag and Entry count
	Tag         TagTID
	Entry       EntryTID
}

// TagData is what RBD stores in a Tag: who is primary in this epoch.
//
//	string owner's mirror uuid
//	string, bool, u64, u64 predecessor: mirror uuid, commit valid, tag, entry
//
// There is no version in it.
type TagData struct {
	MirrorUUID  string
	Predecessor TagPredecessor
}

func (t TagData) String() string {
	s := fmt.Sprintf("[mirror_uuid=%s, predecessor=[mirror_uuid=%s", t.MirrorUUID, t.Predecessor.MirrorUUID)
	if t.Predecessor.CommitValid {
		s += fmt.Sprintf(", tag_tid=%d, entry_tid=%d", t.Predecessor.Tag, t.Predecessor.Entry)
	}
	return s + "]]"
}

// Encode appends t.
func (t TagData) Encode(e *encoding.Encoder) {
	e.String(t.MirrorUUID)
	e.String(t.Predecessor.MirrorUUID)
	e.Bool(t.Predecessor.CommitValid)
	e.U64(uint64(t.Predecessor.Tag))
	e.U64(uint64(t.Predecessor.Entry))
}

// DecodeTagData reads a Tag's Data. The error is a *encoding.CorruptError.
func DecodeTagData(b []byte) (TagData, error) {
	d := encoding.NewDecoder("journal.TagData", b)
	t := TagData{MirrorUUID: d.String(), Predecessor: TagPredecessor{
		MirrorUUID:  d.String(),
		CommitValid: d.Bool(),
		Tag:         TagTID(d.U64()),
		Entry:       EntryTID(d.U64()),
	}}
	if err := d.Err(); err != nil {
		return TagData{}, err
	}
	return t, nil
}
