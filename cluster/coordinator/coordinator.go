// Package coordinator is one member's part in a pool: it makes the worker a member
// (package membership), a candidate for the leadership (package leader), tells which
// images to run (package imagemap), and while it leads shares the images out (package
// placement).
//
//	membership ──view──▶ ┌─────────────┐ ──Assigned──▶ pool's actor ──Applied──▶ record
//	leader ──Leads/Lost─▶│ coordinator │
//	map, lists ─────────▶└─────────────┘ ──Write, lock asserted──▶ image map ──notify──▶ members
//
// Everything is level-triggered: what counts is what RADOS says; notifications only
// hurry. An image moves in three steps: the leader writes the map; the old owner lets go
// and says of which epoch it runs nothing foreign; the new owner begins (see portion).
package coordinator

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/cluster/leader"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/cluster/placement"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rhythm"
)

// Options are what a coordinator is made of.
type Options struct {
	// Open opens the pool, or a namespace of it. It may be called again after an error.
	Open func(ctx context.Context, namespace string) (rados.IOContext, error)
	// Self is this member. Its ID is that of the client that Open opens with.
	Self membership.Member
	// Siblings are how many workers the daemon has, this one included.
	Siblings int
	// KnownDead judges processes of this host; see package identity.
	KnownDead func(description string) bool
	// AwaitDeath waits for their ends, as in package membership; it may be nil.
	AwaitDeath func(description string, gone func()) (stop func(), waits bool)
	// Heartbeat is the leader's (rbd_mirror_leader_heartbeat_interval).
	Heartbeat time.Duration
	// BlocklistExpire is how long the dead stay blocklisted (0: the cluster's default).
	BlocklistExpire time.Duration
	// Placement is how images are shared out.
	Placement placement.Options
	// Now is this host's clock, by which the map's entries are dated; nil: time.Now.
	Now func() time.Time
	// Loads asks members for the loads of the images that they run; the result has those that
	// answered, by their ids. Nil: loads are not known, and the images' number alone counts.
	Loads func(ctx context.Context, members []string) map[string]Loads
	// Changed is called with each new view of the members, from one goroutine; it is quick.
	// Nil: nobody is told.
	Changed func(membership.View)
	Log     zerolog.Logger
}

// Times of the coordinator.
const (
	// tick is the time between looks while something is going on, and for lively after that;
	// then it is rest.
	tick   = 250 * time.Millisecond
	rest   = 2 * time.Second
	lively = 20 * time.Second
	// reread is the time between looks at the map when nothing asks for one.
	reread = 5 * time.Second
	// handover is how long a member that says nothing is waited for.
	handover = 15 * time.Second
	// patience bounds a look at RADOS or a write.
	patience = 20 * time.Second
)

// What members notify each other of.
var (
	saysMap   = []byte("map")   // the image map has changed
	saysTrash = []byte("trash") // something was put into the trash
)

// Coordinator is one member's part in a pool. Make it with New and call Run once.
type Coordinator struct {
	opt     Options
	told    Told
	wake    chan struct{}
	leaving chan struct{} // closed by Leaving
	release chan struct{}
	doubt   chan struct{} // somebody is dead: perhaps the leader
	once    sync.Once

	mu       sync.Mutex // guards what others put in
	group    *membership.Group
	view     membership.View
	joined   time.Time
	lists    map[string]list // newest, by namespace; nil: not mirrored any more
	applied  map[string]uint64
	term     *leader.Term     // nil while we do not lead
	leader   string           // id of who leads instead of us, "" if it is not known
	moves    []*move          // that operators ask for
	foreign  string           // why the pool's leader is none of ours, "" if it is
	follows  bool             // there is a leader, or was
	loads    map[string]Loads // that members told, by their ids; nil: nothing new
	hurry    bool             // the map is said to have changed
	announce bool             // our record is to be written
	drains   bool             // our images are to be given away
	left     bool             // Leaving was called
	holds    map[string]int   // how many images the map gives to us, by namespace
	cutOff   bool             // the primary's cluster is silent, but not for others

	// Only Run's goroutine uses what follows.
	standing   *standing // as told
	namespaces map[string]*namespace
	asked      time.Time    // when the members were last asked for their loads
	askedFor   *leader.Term // in which term
	asking     sync.WaitGroup
	reach      *reach          // while we lead
	cut        map[string]bool // who is cut off from the primary, while we lead
}

// standing tells whether images may run here, and if not, why.
type standing struct {
	works bool
	why   string
}

// list is what a namespace's actor listed.
type list struct {
	mirrored bool // the namespace is
	ids      []string
	listed   bool
	complete bool
	remote   string // whether the primary's cluster answers, as our record says it
}

// New makes a coordinator.
func New(opt Options) *Coordinator {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	return &Coordinator{
		opt: opt, wake: make(chan struct{}, 1), leaving: make(chan struct{}), release: make(chan struct{}, 1), doubt: make(chan struct{}, 1),
		lists: map[string]list{}, applied: map[string]uint64{}, namespaces: map[string]*namespace{}, holds: map[string]int{},
		drains: opt.Self.Draining,
		view:   membership.View{Frozen: true}, // until somebody was seen, nobody is known to have let go of anything
	}
}

// poke makes the loop look.
func (c *Coordinator) poke() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// set changes what others put in, and makes the loop look.
func (c *Coordinator) set(change func()) {
	c.mu.Lock()
	change()
	c.mu.Unlock()
	c.poke()
}

// Namespaces says which namespaces are mirrored.
func (c *Coordinator) Namespaces(names []string) {
	c.mu.Lock()
	was := maps.Clone(c.lists)
	for ns, l := range c.lists {
		l.mirrored = slices.Contains(names, ns)
		c.lists[ns] = l
	}
	for _, ns := range names {
		l := c.lists[ns]
		l.mirrored = true
		c.lists[ns] = l
	}
	same := maps.EqualFunc(was, c.lists, func(a, b list) bool { return a.mirrored == b.mirrored })
	c.announce = c.announce || !same
	c.mu.Unlock()
	if !same { // sites list again and again
		c.poke()
	}
}

// Listed says which images of a namespace are mirrored; complete if both sites were asked.
func (c *Coordinator) Listed(namespace string, globalIDs []string, complete bool) {
	c.mu.Lock()
	l := c.lists[namespace]
	same := l.listed && l.complete == complete && slices.Equal(l.ids, globalIDs)
	l.ids, l.listed, l.complete = globalIDs, true, complete
	c.lists[namespace] = l
	c.mu.Unlock()
	if !same { // pools list again and again
		c.poke()
	}
}

// Applied says that nothing of the namespace runs here that the share of that epoch does
// not name.
func (c *Coordinator) Applied(namespace string, epoch uint64) {
	c.set(func() {
		if c.applied[namespace] != epoch {
			c.applied[namespace], c.announce = epoch, true
		}
	})
}

// Trashed tells the leader that something was put into the trash.
func (c *Coordinator) Trashed() {
	if c.leads() {
		c.told.Trashed()
		return
	}
	c.mu.Lock()
	group := c.group
	c.mu.Unlock()
	if group != nil {
		go notify(group, saysTrash)
	}
}

// notify hurries other members. Who misses it looks by itself, later.
func notify(group *membership.Group, payload []byte) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	_ = group.Notify(ctx, payload)
}

// Release gives the leadership up for now.
func (c *Coordinator) Release() {
	select {
	case c.release <- struct{}{}:
	default: // it was asked already
	}
}

// Leaving says that this member is about to end: it leads no more, and is given no image.
func (c *Coordinator) Leaving() { c.once.Do(func() { close(c.leaving) }) }

// Reached says where this member listens to others, and by which certificates it is known.
func (c *Coordinator) Reached(address, fingerprint string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.opt.Self.Address, c.opt.Self.Fingerprint = address, fingerprint
	if c.group != nil {
		c.group.Update(func(m *membership.Member) { m.Address, m.Fingerprint = address, fingerprint })
	}
}

// Fenced tells whether the owner of a lock with that description was fenced by the leader.
func (c *Coordinator) Fenced(description string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.view.Fenced(description)
}

// View is what is known of the members.
func (c *Coordinator) View() membership.View {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.view
}

func (c *Coordinator) leads() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.term != nil
}

// Run takes part until ctx ends, and leaves in an orderly way then.
func (c *Coordinator) Run(ctx context.Context, told Told) {
	c.told = told
	io := c.open(ctx, "")
	if io == nil {
		return
	}
	defer io.Close()
	group := c.member(io)
	member, leave := context.WithCancel(context.WithoutCancel(ctx))
	defer leave()
	var parts sync.WaitGroup
	parts.Go(func() { _ = group.Run(member) }) // its end is told by Lost
	election, resign := context.WithCancel(ctx)
	defer resign()
	var candidacy sync.WaitGroup
	candidacy.Go(func() { c.compete(election, io) })
	go func() {
		select {
		case <-c.leaving:
			c.drain(func() { c.left = true })
			resign()
		case <-election.Done():
		}
	}()
	c.loop(ctx)
	c.asking.Wait()
	candidacy.Wait() // the leadership goes first, for whoever holds it is to be a member
	leave()
	parts.Wait()
	for _, n := range c.namespaces {
		n.close()
	}
}

// member makes this worker a member to be.
func (c *Coordinator) member(io rados.IOContext) *membership.Group {
	c.mu.Lock()
	defer c.mu.Unlock() // until there is a group, Reached changes what it is made of
	self := c.opt.Self
	self.Extra = c.extra()
	group := membership.New(io, membership.Options{
		Self: self, KnownDead: c.opt.KnownDead, AwaitDeath: c.opt.AwaitDeath, BlocklistExpire: c.opt.BlocklistExpire,
		Changed: func(v membership.View) {
			c.set(func() {
				if c.joined.IsZero() && !v.Frozen {
					c.joined = time.Now()
				}
				c.view = v
			})
			if c.opt.Changed != nil {
				c.opt.Changed(v)
			}
			if len(v.Dead) > 0 {
				select {
				case c.doubt <- struct{}{}:
				default:
				}
			}
		},
		Notified: func(payload []byte) {
			switch {
			case bytes.Equal(payload, saysMap):
				c.set(func() { c.hurry = true })
			case bytes.Equal(payload, saysTrash) && c.leads():
				c.told.Trashed()
			}
		},
		Lost: c.told.Fenced,
		Log:  c.opt.Log,
	})
	c.group = group
	return group
}

// open opens the pool or a namespace, however often it takes; nil when ctx has ended.
func (c *Coordinator) open(ctx context.Context, namespace string) rados.IOContext {
	for {
		io, err := c.opt.Open(ctx, namespace)
		if err == nil {
			return io
		}
		c.opt.Log.Warn().Err(err).Msg("cannot open the pool")
		if !pause(ctx, 5*time.Second) {
			return nil
		}
	}
}

func pause(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}

// loop looks at everything whenever something has changed, and every so often: what follows
// a change follows it in time, too (a handover, a step of the placement), but nothing goes
// on for longer than lively without another change.
func (c *Coordinator) loop(ctx context.Context) {
	timer := time.NewTimer(tick)
	defer timer.Stop()
	for changed := time.Now(); ctx.Err() == nil; {
		c.look(ctx)
		next := rest
		if time.Since(changed) < lively || !c.settled() {
			next = tick
		}
		timer.Reset(rhythm.Within(next))
		select {
		case <-ctx.Done():
		case <-c.wake:
			changed = time.Now()
		case <-timer.C:
		}
	}
}

// settled tells that nothing waits to be tried again.
func (c *Coordinator) settled() bool {
	if c.standing == nil || !c.standing.works {
		return false
	}
	for _, n := range c.namespaces {
		if n.trouble != "" || !n.portion.known || len(n.portion.run) < len(n.portion.mine) {
			return false
		}
	}
	return true
}

// inputs are what others put in, as one look sees them.
type inputs struct {
	view    membership.View
	joined  time.Time
	lists   map[string]list
	term    *leader.Term
	foreign string
	follows bool
	hurry   bool
	moves   []*move // each is seen once
	loads   map[string]Loads
}

func (c *Coordinator) inputs() inputs {
	c.mu.Lock()
	defer c.mu.Unlock()
	in := inputs{
		view: c.view, joined: c.joined, lists: maps.Clone(c.lists), term: c.term, foreign: c.foreign, follows: c.follows, hurry: c.hurry,
	}
	in.moves, in.loads = c.moves, c.loads
	c.hurry, c.moves, c.loads = false, nil, nil
	return in
}

// look does what there is to do.
func (c *Coordinator) look(ctx context.Context) {
	in := c.inputs()
	c.tellWorks(in)
	for ns, l := range in.lists {
		switch {
		case l.mirrored && c.namespaces[ns] == nil:
			io, err := c.opt.Open(ctx, ns)
			if err != nil {
				c.opt.Log.Warn().Err(err).Str("namespace", ns).Msg("cannot open the namespace")
				continue
			}
			c.namespaces[ns] = newNamespace(c, ns, io)
		case !l.mirrored && c.namespaces[ns] != nil:
			c.namespaces[ns].close()
			delete(c.namespaces, ns)
			c.hold(ns, 0)
		}
	}
	c.gather(ctx, in)
	c.judgeReach(in)
	c.refuseMoves(in)
	for _, ns := range slices.Sorted(maps.Keys(c.namespaces)) {
		if ctx.Err() == nil {
			c.namespaces[ns].look(ctx, in)
		}
	}
	c.tellRecord()
}

// tellWorks tells whether images may run here, when that changes.
func (c *Coordinator) tellWorks(in inputs) {
	works, why := true, ""
	switch {
	case in.joined.IsZero():
		works, why = false, "this worker is about to join the others"
	case in.foreign != "":
		works, why = false, in.foreign
	case in.term == nil && !in.follows:
		works, why = false, "nobody leads the pool yet"
	}
	if now := (standing{works, why}); c.standing == nil || *c.standing != now {
		c.standing = &now
		c.told.Works(works, why)
	}
}

// tellRecord writes into our record what others wait for.
func (c *Coordinator) tellRecord() {
	c.mu.Lock()
	announce, group := c.announce, c.group
	c.announce = false
	extra := c.extra()
	for ns, epoch := range c.applied {
		extra[extraApplied+ns] = strconv.FormatUint(epoch, 10)
	}
	c.mu.Unlock()
	for name, n := range c.namespaces {
		if n.written > 0 {
			extra[extraMap+name] = strconv.FormatUint(uint64(n.written), 10)
		}
	}
	if announce {
		group.Update(func(m *membership.Member) { m.Extra = extra })
	}
}

// extra is what our record says from the beginning; mu is held.
func (c *Coordinator) extra() map[string]string {
	extra := map[string]string{extraWorkers: strconv.Itoa(c.opt.Siblings)}
	if says := c.remote(); says != "" {
		extra[extraRemote] = says
	}
	return extra
}
