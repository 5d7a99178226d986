package lock

import (
	"testing"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// An owner that is known to be dead is fenced although its watch is still listed; our
// own connection never is.
func TestKnownDeadIsFencedAtOnce(t *testing.T) {
	see := func(owner uint64, known bool) decision {
		l := locker(owner, "auto 20", "10.0.0.2:0/2")
		return decide(sight{
			Self: 1, Addresses: "10.0.0.1:0/1", Cookie: "auto 10", Tag: cls.RBDTag, KnownDead: known,
			Info:      cls.Info{Type: cls.Exclusive, Tag: cls.RBDTag, Lockers: []cls.Locker{l}},
			Watchers:  []rados.Watcher{{ClientID: owner, Cookie: 20, Address: "10.0.0.2:0/2"}},
			DeadGrace: time.Second, RewatchGrace: time.Minute,
		})
	}
	if _, ok := see(2, true).(fence); !ok {
		t.Errorf("known dead: %#v", see(2, true))
	}
	if _, ok := see(2, false).(ask); !ok {
		t.Errorf("not known dead: %#v", see(2, false))
	}
	if _, ok := see(1, true).(fence); ok {
		t.Error("fences itself")
	}
}
