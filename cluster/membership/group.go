package membership

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// The lock that every member holds, shared, for as long as it is one.
const (
	lockName = "rbd_warden_member"
	lockTag  = "rbd_warden"
)

// Options are the settings of a Group. Zero durations are the defaults in brackets.
type Options struct {
	// Self is this process. Its ID is set by New.
	Self Member
	// Beat is the time between heartbeats, and between looks at those of others
	// [0.5 s].
	Beat time.Duration
	// TTL is how long a member is believed to live that nobody hears of, and how long
	// Valid holds after the last heartbeat that got through [1.8 s: four missed
	// heartbeats, so that a death is seen after two seconds and a little].
	TTL time.Duration
	// FencedFor is how long fenced members are remembered [10 min]. It only has to be
	// longer than the OSDs keep the watches of the dead.
	FencedFor time.Duration
	// BlocklistExpire is how long the client of a member that was fenced stays on the
	// blocklist (0: the cluster's default).
	BlocklistExpire time.Duration
	// KnownDead says of another member's identity that its process is certainly dead,
	// as far as can be told from this host: see cluster/identity. Nil: nobody is known to
	// be dead.
	KnownDead func(identity string) bool
	// AwaitDeath calls gone, from any goroutine, when KnownDead may have become true of
	// that identity, until stop is called. Where it cannot (waits is false), or is nil,
	// KnownDead is asked ten times a second.
	AwaitDeath func(identity string, gone func()) (stop func(), waits bool)

	// Changed is called with each new view, Notified with each payload of Notify, of
	// other members and of this one: from one goroutine each, so they must be quick.
	// Nil: nobody is told.
	Changed  func(View)
	Notified func(payload []byte)
	// Lost is called once, before Run returns, when this process is a member no longer
	// although it did not leave: it was fenced (rados.Classify says Fenced) or removed
	// (ErrRemoved). It must stop writing at once, and end; a process that starts
	// instead joins under a new id.
	Lost func(err error)
	Log  zerolog.Logger
}

type removedError struct{}

func (removedError) Error() string { return "this process was removed from the members of the pool" }

func (removedError) Is(target error) bool { return target == rados.Blocklisted }

// Errors of a Group.
var (
	// ErrRemoved: this member's lock or record is gone, without its doing. Whoever did that
	// has fenced it, or was told to do so by hand; so rados.Classify calls it fenced.
	ErrRemoved error = removedError{}
	// ErrAlive: who was to be fenced has given a sign of life meanwhile.
	ErrAlive = errors.New("the member lives")
	// ErrNoMember: the caller is no member itself just now, or not certain to be one.
	ErrNoMember = errors.New("this process is not certain to be a member")
)

// The times that nobody needs to set.
const (
	knownDeadInterval = 100 * time.Millisecond // between questions to KnownDead, of whom no death is awaited
	opTimeout         = 10 * time.Second       // of one operation
	leaveTimeout      = 5 * time.Second
	sayTimeout        = time.Second // that a notification waits for deaf watchers
	maxBeats          = 4           // heartbeats under way at a time
	maxEntries        = 1024        // that an OSD lists at a time (osd_max_omap_entries_per_request)
	maxTombs          = 256         // fenced members that are remembered
)

// Group is this process as a member of a pool. Make it with New, then Run it.
type Group struct {
	io  rados.IOContext
	opt Options
	id  string

	updated chan struct{} // self has changed
	poked   chan struct{} // look now
	fatal   chan error    // the client is fenced
	said    sync.WaitGroup

	mu       sync.Mutex
	self     Member
	revision uint32 // of self
	table    *table
	lease    time.Time // when the last heartbeat that got through began
	ended    bool
}

// New makes this process a member to be. io is the pool, in its default namespace; it
// must stay open until Run has returned.
func New(io rados.IOContext, opt Options) *Group {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&opt.Beat, 500 * time.Millisecond}, {&opt.TTL, 1800 * time.Millisecond}, {&opt.FencedFor, 10 * time.Minute}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	if opt.KnownDead == nil {
		opt.KnownDead = func(string) bool { return false }
	}
	if opt.Changed == nil {
		opt.Changed = func(View) {}
	}
	if opt.Notified == nil {
		opt.Notified = func([]byte) {}
	}
	if opt.Lost == nil {
		opt.Lost = func(error) {}
	}
	g := &Group{
		io: io, opt: opt, id: strconv.FormatUint(io.Cluster().InstanceID(), 10),
		updated: make(chan struct{}, 1), poked: make(chan struct{}, 1), fatal: make(chan error, 1),
		self: opt.Self.clone(), revision: 1,
	}
	g.self.ID = g.id
	g.table = newTable(g.id, opt.Beat, opt.TTL, opt.FencedFor)
	return g
}

// ID is this member's id.
func (g *Group) ID() string { return g.id }

// View is what is known now. Before the first look it is frozen and empty.
func (g *Group) View() View {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.view()
}

// Fenced is View().Fenced.
func (g *Group) Fenced(identity string) bool { return g.View().Fenced(identity) }

// KnownDead is View().KnownDead.
func (g *Group) KnownDead(identity string) bool { return g.View().KnownDead(identity) }

// Valid tells whether this process was a member a moment ago: a heartbeat got through
// that began within TTL. Asked before a write it tells a process that was paused or cut
// off to hold its hand until it knows more. It is good manners only: what keeps the writes
// of a process that others gave up from landing is the blocklist.
func (g *Group) Valid() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return !g.ended && !g.lease.IsZero() && time.Since(g.lease) < g.opt.TTL
}

// Update changes this member's record, at once if it is a member, or else before it
// becomes one. change must not keep what it is given; it cannot change the id.
func (g *Group) Update(change func(m *Member)) {
	g.mu.Lock()
	m := g.self.clone()
	change(&m)
	m.ID = g.id
	g.self = m
	g.revision++
	g.mu.Unlock()
	nudge(g.updated)
}

// SetDraining says whether this member gives its images away.
func (g *Group) SetDraining(draining bool) { g.Update(func(m *Member) { m.Draining = draining }) }

// Notify hands a payload to Notified of all members that listen, this one included, and
// waits until they have it, up to a second. Who does not listen misses it; nobody may rest
// on it.
func (g *Group) Notify(ctx context.Context, payload []byte) error {
	return g.notify(ctx, message{aboutPayload, payload})
}

func (g *Group) notify(ctx context.Context, m message) error {
	_, err := g.io.Notify(ctx, Object, bytesOf(m), sayTimeout)
	return err
}

// announce tells the others in the background that something has changed.
func (g *Group) announce() {
	g.said.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*sayTimeout)
		defer cancel()
		_ = g.notify(ctx, message{subject: aboutMembers}) // who misses it looks soon
	})
}

func nudge(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// asserted are the steps that refuse an operation unless this process is a member.
func (g *Group) asserted() (op rados.WriteOp) {
	op.Exec(cls.Assert(lockName, cls.Shared, g.id, lockTag))
	return op
}
