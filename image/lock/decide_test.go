package lock

import (
	"errors"
	"strings"
	"syscall"
	"testing"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/notify"
	"github.com/rbdwarden/rbdwarden/rados"
)

func mustAddr(s string) cls.EntityAddr {
	a, err := cls.ParseEntityAddr(s)
	if err != nil {
		panic(err)
	}
	return a
}

func locker(client uint64, cookie, addr string) cls.Locker {
	return cls.Locker{
		LockerID:   cls.LockerID{Entity: cls.ClientName(client), Cookie: cookie},
		LockerInfo: cls.LockerInfo{Address: mustAddr(addr)},
	}
}

func TestDecide(t *testing.T) {
	const (
		self  = 1
		other = 2
	)
	held := func(l cls.Locker) cls.Info {
		return cls.Info{Type: cls.Exclusive, Tag: cls.RBDTag, Lockers: []cls.Locker{l}}
	}
	theirs := locker(other, "auto 20", "v1:10.0.0.2:0/2")
	mine := locker(self, "auto 10", "v1:10.0.0.1:0/1")
	stale := locker(self, "auto 9", "v1:10.0.0.1:0/1")
	reborn := locker(other, "auto 20", "v1:10.0.0.1:0/1") // another name, our address
	watch := func(client, cookie uint64, addr string) rados.Watcher {
		return rados.Watcher{ClientID: client, Cookie: cookie, Address: addr}
	}
	own := watch(self, 10, "10.0.0.1:0/1")
	const long, grace = 2 * time.Second, time.Second

	for _, c := range []struct {
		name     string
		info     cls.Info
		watchers []rados.Watcher
		deadFor  time.Duration
		want     decision // giveUp{} stands for any ForeignError
	}{
		{"KNOWN DEAD, its watch still there", held(theirs), []rados.Watcher{own, watch(other, 20, "10.0.0.2:0/2")}, 0, fence{theirs}},
		{"KNOWN DEAD, without its watch", held(theirs), []rados.Watcher{own}, 0, fence{theirs}},
		{"KNOWN DEAD, but a person's lock", held(locker(other, "mine", "10.0.0.2:0/2")), nil, 0, giveUp{}},
		{"KNOWN DEAD, but it is us", held(stale), []rados.Watcher{own, watch(self, 9, "10.0.0.1:0/1")}, 0, ask{stale}},
		{"KNOWN DEAD, our own stale lock", held(stale), []rados.Watcher{own}, 0, wait{stale, grace}},

		{"never locked", cls.Info{}, []rados.Watcher{own}, 0, take{}},
		{"unlocked", cls.Info{Type: cls.Exclusive, Tag: cls.RBDTag}, []rados.Watcher{own}, 0, take{}},
		{"unlocked, foreign tag left", cls.Info{Type: cls.Shared, Tag: "x"}, []rados.Watcher{own}, 0, take{}},
		{"ours", held(mine), []rados.Watcher{own}, 0, have{}},
		{"ours, long since", held(mine), []rados.Watcher{own}, long, have{}},

		{"alive", held(theirs), []rados.Watcher{own, watch(other, 20, "10.0.0.2:0/2")}, 0, ask{theirs}},
		{"alive, thought dead before", held(theirs), []rados.Watcher{watch(other, 20, "10.0.0.2:0/2")}, long, ask{theirs}},
		{"alive by address only", held(theirs), []rados.Watcher{watch(77, 20, "10.0.0.2:0/2")}, long, ask{theirs}},
		{"alive by name only", held(theirs), []rados.Watcher{watch(other, 20, "")}, long, ask{theirs}},
		{"rewatching", held(theirs), []rados.Watcher{own, watch(other, 21, "10.0.0.2:0/2")}, long, ask{theirs}},
		{"rewatching too long", held(theirs), []rados.Watcher{own, watch(other, 21, "10.0.0.2:0/2")}, time.Minute, fence{theirs}},

		{"dead at first sight", held(theirs), []rados.Watcher{own}, 0, wait{theirs, grace}},
		{"dead for a moment", held(theirs), []rados.Watcher{own}, grace / 4, wait{theirs, grace - grace/4}},
		{"dead", held(theirs), []rados.Watcher{own}, grace, fence{theirs}},
		{"dead, a stranger watches with the same handle", held(theirs), []rados.Watcher{watch(3, 20, "10.0.0.3:0/3")}, grace, fence{theirs}},
		{"dead, we watch with the same handle", held(theirs), []rados.Watcher{watch(self, 20, "10.0.0.1:0/1")}, grace, fence{theirs}},
		{"dead, nobody watches", held(theirs), nil, grace, fence{theirs}},

		{"our stale lock", held(stale), []rados.Watcher{own}, grace, adopt{stale}},
		{"our stale lock at first sight", held(stale), []rados.Watcher{own}, 0, wait{stale, grace}},
		{"another lock of ours lives", held(stale), []rados.Watcher{own, watch(self, 9, "10.0.0.1:0/1")}, long, ask{stale}},
		{"our address, another name", held(reborn), []rados.Watcher{own}, grace, breakOnly{reborn}},

		{"tag of a person", cls.Info{Type: cls.Exclusive, Lockers: []cls.Locker{locker(other, "mine", "10.0.0.2:0/2")}}, nil, long, giveUp{}},
		{"cookie of a person", held(locker(other, "mine", "10.0.0.2:0/2")), nil, long, giveUp{}},
		{"shared", cls.Info{Type: cls.Shared, Tag: cls.RBDTag, Lockers: []cls.Locker{theirs}}, nil, long, giveUp{}},
		{"dead without an address", held(locker(other, "auto 20", "-")), []rados.Watcher{own}, long, giveUp{}},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := decide(sight{
				Self: self, Addresses: "[v2:10.0.0.1:0/1,v1:10.0.0.1:0/1]", Cookie: "auto 10", Tag: cls.RBDTag,
				Info: c.info, Watchers: c.watchers, DeadFor: c.deadFor,
				DeadGrace: grace, RewatchGrace: 30 * time.Second,
				KnownDead: strings.HasPrefix(c.name, "KNOWN DEAD"),
			})
			if g, ok := got.(giveUp); ok {
				var foreign *ForeignError
				if !errors.As(g.err, &foreign) || !errors.Is(g.err, syscall.EBUSY) {
					t.Fatalf("gives up with %v", g.err)
				}
				got = giveUp{}
			}
			if got != c.want {
				t.Errorf("%#v, want %#v", got, c.want)
			}
		})
	}
}

// TestNeverFencesSelfOrTheLiving goes through all combinations of who holds the
// lock and who watches.
func TestNeverFencesSelfOrTheLiving(t *testing.T) {
	clients := []uint64{1, 2}
	cookies := []uint64{10, 20}
	var watches []rados.Watcher
	for _, c := range clients {
		for _, k := range cookies {
			watches = append(watches, rados.Watcher{ClientID: c, Cookie: k, Address: mustAddr("10.0.0.1:0/" + string(rune('0'+c))).Blocklist()})
		}
	}
	fenced := 0
	for _, c := range clients {
		for _, k := range cookies {
			for set := range 2 << len(watches) {
				owner := locker(c, cls.RBDCookie(k), "10.0.0.1:0/"+string(rune('0'+c)))
				s := sight{
					Self: 1, Addresses: "10.0.0.1:0/1", Cookie: "auto 10", Tag: cls.RBDTag, DeadFor: time.Hour,
					Info: cls.Info{Type: cls.Exclusive, Tag: cls.RBDTag, Lockers: []cls.Locker{owner}},
				}
				s.KnownDead = set>>len(watches) != 0
				living := false
				for i, w := range watches {
					if set&(1<<i) != 0 {
						s.Watchers = append(s.Watchers, w)
						living = living || w.ClientID == c && w.Cookie == k && !s.KnownDead
					}
				}
				if f, ok := decide(s).(fence); ok {
					fenced++
					if c == 1 || living || f.Owner != owner {
						t.Errorf("fences %+v, watchers %+v", f.Owner, s.Watchers)
					}
				}
			}
		}
	}
	if fenced == 0 {
		t.Error("nobody was ever fenced: the test proves nothing")
	}
}

func TestHeed(t *testing.T) {
	answer := func(errnos ...syscall.Errno) rados.NotifyReply {
		r := rados.NotifyReply{Acks: []rados.NotifyAck{{}, {Reply: []byte{}}}}
		for _, e := range errnos {
			r.Acks = append(r.Acks, rados.NotifyAck{Reply: notify.Response{Result: -int32(e)}.Encode()})
		}
		return r
	}
	for _, c := range []struct {
		name string
		in   rados.NotifyReply
		want reply
	}{
		{"nobody", rados.NotifyReply{}, noAnswer},
		{"missed", rados.NotifyReply{Missed: []rados.Watcher{{ClientID: 2}}}, noAnswer},
		{"acknowledged only", answer(), noAnswer},
		{"will release", answer(0), releasing},
		{"refused", answer(syscall.EROFS), refused},
		{"timed out", answer(syscall.ETIMEDOUT), noAnswer},
		{"some error", answer(syscall.EIO), unclear},
		{"two owners", answer(0, syscall.EROFS), unclear},
		{"two owners agree", answer(syscall.EROFS, syscall.EROFS), unclear},
		{"damaged", rados.NotifyReply{Acks: []rados.NotifyAck{{Reply: []byte{1, 2}}}}, unclear},
	} {
		if got := heed(c.in); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
