package notify

import (
	"strconv"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// LeaderOp is what a notification on rbd_mirror_leader says (NotifyOp of
// src/tools/rbd_mirror/leader_watcher/Types.h). None has fields.
type LeaderOp uint32

// The notifications on rbd_mirror_leader. All come from the leader.
const (
	// LeaderHeartbeat: the leader lives. A follower that hears none for a few
	// intervals breaks the leader's lock.
	LeaderHeartbeat LeaderOp = 0
	// LeaderLockAcquired: the sender has become the leader.
	LeaderLockAcquired LeaderOp = 1
	// LeaderLockReleased: the sender is the leader no longer; try for the lock.
	LeaderLockReleased LeaderOp = 2
)

func (o LeaderOp) String() string {
	switch o {
	case LeaderHeartbeat:
		return "Heartbeat"
	case LeaderLockAcquired:
		return "LockAcquired"
	case LeaderLockReleased:
		return "LockReleased"
	}
	return "LeaderOp(" + strconv.FormatUint(uint64(o), 10) + ")"
}

// LeaderMessage is a notification on rbd_mirror_leader
// (rbd::mirror::leader_watcher::NotifyMessage).
type LeaderMessage struct {
	Op  LeaderOp
	Raw []byte // what follows the operation; nothing for the known ones
}

// Encode encodes the message.
func (m LeaderMessage) Encode() []byte {
	e := encoding.NewEncoder(10 + len(m.Raw))
	e.Struct(1, 1, func(e *encoding.Encoder) {
		e.U32(uint32(m.Op))
		e.Raw(m.Raw)
	})
	return e.Bytes()
}

// DecodeLeader decodes a notification on rbd_mirror_leader.
func DecodeLeader(b []byte) (m LeaderMessage, err error) {
	d := encoding.NewDecoder("notify.LeaderMessage", b)
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		m.Op = LeaderOp(d.U32())
		if rest := d.Rest(); len(rest) > 0 {
			m.Raw = append([]byte(nil), rest...)
		}
	})
	return m, d.Err()
}
