package journal

import (
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// EntriesBehind counts the entries between what the primary (client "") and the
// mirror have committed, as the status that rbd-mirror writes does. Tags between
// the two are looked up with tag; for one that it does not have yet, missing is
// its id, and the caller fetches it and calls again.
//
// Source: ReplayStatusFormatter::calculate_behind_master_or_send_update.
func EntriesBehind(primary, mirror wire.ObjectSetPosition, tag func(wire.TagTID) (wire.TagData, bool)) (n uint64, missing *wire.TagTID) {
	master, ok := primary.Newest()
	at, _ := mirror.Newest()
	if !ok || master == (wire.ObjectPosition{}) || master.Tag < at.Tag {
		return 0, nil
	}
	for master.Tag > at.Tag {
		data, ok := tag(master.Tag)
		if !ok {
			return 0, &master.Tag
		}
		n += uint64(master.Entry)
		p := data.Predecessor
		if p.MirrorUUID != wire.LocalMirrorUUID && p.MirrorUUID != wire.OrphanMirrorUUID {
			// Before this tag another site was primary: its entries are not in this
			// journal.
			p = wire.TagPredecessor{}
		}
		if p.Tag >= master.Tag {
			return n, nil // tags do not go back: not a chain to follow
		}
		master = wire.ObjectPosition{Tag: p.Tag, Entry: p.Entry}
	}
	if master.Tag == at.Tag && master.Entry > at.Entry {
		n += uint64(master.Entry - at.Entry)
	}
	return n, nil
}
