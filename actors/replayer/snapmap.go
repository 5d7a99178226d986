package replayer

import (
	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// snapMap knows the local snapshots that an initial sync made of the primary's.
type snapMap struct {
	seqs   map[ceph.SnapID]ceph.SnapID // primary's → ours
	newest ceph.SnapID                 // of ours
}

func newSnapMap(meta wire.MirrorPeerClientMeta) *snapMap {
	m := &snapMap{seqs: make(map[ceph.SnapID]ceph.SnapID, len(meta.SnapSeqs))}
	for primary, local := range meta.SnapSeqs {
		m.seqs[ceph.SnapID(primary)] = ceph.SnapID(local)
		m.newest = max(m.newest, ceph.SnapID(local))
	}
	return m
}

// local finds our id of a snapshot of the primary.
func (m *snapMap) local(primary ceph.SnapID) (ceph.SnapID, bool) {
	id, ok := m.seqs[primary]
	return id, ok
}

// incomplete tells whether a local snapshot was made by the sync, and its original vanished
// before all of it was copied: the sync has taken it from its record. What replay has made
// since is newer.
func (m *snapMap) incomplete(ours ceph.SnapID) bool {
	for _, local := range m.seqs {
		if local == ours {
			return false
		}
	}
	return ours < m.newest
}
