package membership

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rhythm"
)

// Run joins, is a member, and leaves in order when ctx ends; then it returns nil. It
// returns an error, after Lost was called with it, if the process was fenced or removed.
// While the pool cannot be read it goes on trying. Call it once.
func (g *Group) Run(ctx context.Context) error {
	inner, cancel := context.WithCancel(ctx)
	defer g.said.Wait()
	var err error
	for {
		var written uint32
		if written, err = g.join(inner); err != nil {
			break
		}
		if err = g.serve(inner, written); !errors.Is(err, errObjectGone) {
			break
		}
		g.opt.Log.Warn().Err(err).Str("object", Object).Msg("the list of members is gone: joining anew")
	}
	cancel()
	lost := err != nil && ctx.Err() == nil
	g.mu.Lock()
	g.ended = true
	g.mu.Unlock()
	if lost {
		g.opt.Log.Error().Err(err).Msg("not a member of the pool any more")
		g.opt.Lost(err)
		return err
	}
	g.leave(ctx)
	return nil
}

// errObjectGone: somebody removed the object, or the whole pool. Nobody was fenced by that.
var errObjectGone = errors.New("the object is gone")

// join tries to become a member until it is one; an error only if it cannot become one any
// more. written is the revision of the record that it joined with.
func (g *Group) join(ctx context.Context) (written uint32, err error) {
	said := ""
	for {
		start := time.Now()
		r := g.record()
		err := g.tryJoin(ctx, r)
		switch {
		case err == nil:
			g.renew(start)
			g.announce()
			return r.revision, nil
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case rados.Classify(err) == rados.Fenced:
			return 0, err
		case err.Error() != said:
			said = err.Error()
			g.opt.Log.Warn().Err(err).Msg("cannot become a member of the pool yet")
		}
		if g.freeze() {
			g.opt.Changed(g.View())
		}
		select {
		case <-ctx.Done():
			return 0, ctx.Err()
		case <-time.After(g.opt.Beat):
		}
	}
}

// tryJoin takes the lock and writes record and first heartbeat in one operation.
func (g *Group) tryJoin(ctx context.Context, r record) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	var op rados.WriteOp
	// MayRenew: an attempt whose answer was lost may have succeeded.
	op.Exec(cls.Lock(cls.Request{
		Name: lockName, Type: cls.Shared, Cookie: g.id, Tag: lockTag, Description: r.member.Identity, Flags: cls.MayRenew,
	}))
	op.SetOmap(map[string][]byte{
		memberPrefix + g.id: bytesOf(r),
		beatPrefix + g.id:   bytesOf(beat{1, r.revision}),
	})
	return g.io.Write(ctx, Object, &op)
}

func (g *Group) record() record {
	g.mu.Lock()
	defer g.mu.Unlock()
	return record{g.revision, g.self}
}

func (g *Group) renew(start time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if start.After(g.lease) {
		g.lease = start
	}
}

func (g *Group) freeze() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.table.freeze()
}

// leave removes lock, record and heartbeat in one operation.
func (g *Group) leave(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), leaveTimeout)
	defer cancel()
	var op rados.WriteOp
	op.Exec(cls.Unlock(lockName, g.id))
	op.RemoveOmap(memberPrefix+g.id, beatPrefix+g.id)
	switch err := g.io.Write(ctx, Object, &op); {
	case err == nil:
		g.announce()
	case !errors.Is(err, syscall.ENOENT): // it never joined
		g.opt.Log.Warn().Err(err).Msg("cannot leave the members of the pool: they will take this process for dead")
	}
}

// beaten and looked are what heartbeats and looks came to.
type (
	beaten struct {
		start    time.Time
		revision uint32 // of the record that was written along, or 0
		err      error
	}
	looked struct {
		sight sight
		err   error
	}
)

// service is the loop of a member.
type service struct {
	*Group
	count   uint64
	written uint32 // revision of the newest record that got through
	beats   chan beaten
	looks   chan looked
	beating int  // heartbeats under way
	looking bool // a look is under way
	again   bool // look once more afterwards
	seen    time.Time
	trouble string // last said
	deaths  *deaths
}

// serve is a member until ctx ends, or it cannot be one any more. written is the revision of
// the record that it joined with: what was changed since is yet to be written.
func (g *Group) serve(ctx context.Context, written uint32) error {
	s := &service{Group: g, count: 1, written: written, beats: make(chan beaten), looks: make(chan looked), seen: time.Now()}
	s.deaths = newDeaths(g.opt.AwaitDeath)
	defer s.deaths.close()
	ctx, cancel := context.WithCancel(ctx)
	watched := make(chan struct{})
	go func() {
		defer close(watched)
		g.watch(ctx)
	}()
	defer func() {
		cancel()
		s.drain()
		<-watched
	}()
	tick := time.NewTimer(rhythm.Beat(g.opt.Beat))
	defer tick.Stop()
	s.look(ctx)
	for {
		var err error
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err = <-g.fatal:
		case <-tick.C:
			tick.Reset(rhythm.Beat(g.opt.Beat))
			s.checkFrozen()
			s.beat(ctx)
			s.look(ctx)
			s.forget(ctx)
		case <-g.updated:
			s.beat(ctx)
		case <-g.poked:
			s.look(ctx)
		case id := <-s.deaths.gone:
			s.deaths.doubt(id)
			s.judge()
		case <-s.deaths.ask():
			s.judge()
		case b := <-s.beats:
			err = s.beatDone(b)
		case l := <-s.looks:
			err = s.lookDone(ctx, l)
		}
		if err != nil {
			return err
		}
	}
}

// drain waits for the operations under way.
func (s *service) drain() {
	for s.beating > 0 || s.looking {
		select {
		case <-s.beats:
			s.beating--
		case <-s.looks:
			s.looking = false
		}
	}
}

// beat sends a heartbeat. Several may be under way: a slow cluster makes them late, not rare.
func (s *service) beat(ctx context.Context) {
	if s.beating == maxBeats {
		return
	}
	s.beating++
	s.count++
	r := s.record()
	op := s.asserted()
	pairs := map[string][]byte{beatPrefix + s.id: bytesOf(beat{s.count, r.revision})}
	done := beaten{start: time.Now()}
	if r.revision > s.written {
		pairs[memberPrefix+s.id], done.revision = bytesOf(r), r.revision
	}
	op.SetOmap(pairs)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, opTimeout)
		defer cancel()
		done.err = s.io.Write(ctx, Object, &op)
		s.beats <- done
	}()
}

func (s *service) beatDone(b beaten) error {
	s.beating--
	switch {
	case errors.Is(b.err, syscall.EBUSY): // assert_locked: the lock is not ours
		return fmt.Errorf("%w: %w", ErrRemoved, b.err)
	case b.err == nil:
		s.renew(b.start)
		if b.revision > s.written {
			s.written = b.revision
			s.announce()
		}
		return nil
	}
	return s.failed("heartbeat", b.err)
}

// failed tells whether an error ends the membership.
func (s *service) failed(what string, err error) error {
	switch {
	case rados.Classify(err) == rados.Fenced, errors.Is(err, ErrRemoved):
		return err
	case errors.Is(err, syscall.ENOENT):
		return fmt.Errorf("%w: %w", errObjectGone, err)
	}
	if err.Error() != s.trouble && !errors.Is(err, context.Canceled) {
		s.trouble = err.Error()
		s.opt.Log.Warn().Err(err).Msg(what + " among the members of the pool")
	}
	return nil
}

// look reads what all others have written.
func (s *service) look(ctx context.Context) {
	if s.looking {
		s.again = true
		return
	}
	s.looking, s.again = true, false
	s.mu.Lock()
	known := s.table.revisions()
	s.mu.Unlock()
	go func() {
		ctx, cancel := context.WithTimeout(ctx, opTimeout)
		defer cancel()
		sight, err := s.read(ctx, known)
		s.looks <- looked{sight, err}
	}()
}

func (s *service) lookDone(ctx context.Context, l looked) error {
	s.looking = false
	if l.err != nil {
		return s.failed("look", l.err)
	}
	if s.trouble != "" {
		s.trouble = ""
		s.opt.Log.Info().Msg("the members of the pool are seen again")
	}
	s.seen = l.sight.start
	confirmed := s.Valid()
	s.mu.Lock()
	changed := s.table.observe(l.sight, confirmed)
	damage := s.table.damage
	if changed {
		s.deaths.await(s.table.identities())
	}
	s.mu.Unlock()
	if changed {
		for _, err := range damage {
			s.opt.Log.Error().Err(err).Msg("a damaged entry among the members of the pool")
		}
		s.opt.Changed(s.View())
	}
	if s.again {
		s.look(ctx)
	}
	return nil
}

// checkFrozen freezes the view when it has not been confirmed for TTL.
func (s *service) checkFrozen() {
	if (time.Since(s.seen) > s.opt.TTL || !s.Valid()) && s.freeze() {
		s.opt.Changed(s.View())
	}
}

func (s *service) judge() {
	s.mu.Lock()
	changed := s.table.judge(time.Now(), s.opt.KnownDead)
	if changed {
		s.deaths.await(s.table.identities())
	}
	s.mu.Unlock()
	if changed {
		s.opt.Changed(s.View())
	}
}

// forget removes the entries of those who were fenced long ago.
func (s *service) forget(ctx context.Context) {
	s.mu.Lock()
	ids := s.table.expired(time.Now())
	s.mu.Unlock()
	if len(ids) == 0 || s.beating == maxBeats {
		return
	}
	op := s.asserted()
	for _, id := range ids {
		op.RemoveOmap(fencedPrefix + id)
	}
	s.beating++
	start := time.Now()
	go func() {
		ctx, cancel := context.WithTimeout(ctx, opTimeout)
		defer cancel()
		err := s.io.Write(ctx, Object, &op)
		s.beats <- beaten{start: start, err: err}
	}()
}

// read takes a sight of the object. known are the revisions of the records that need not
// be read.
func (g *Group) read(ctx context.Context, known map[string]uint32) (sight, error) {
	s := sight{
		start: time.Now(), beats: map[string]beat{}, records: map[string]record{}, tombs: map[string]tombstone{}, damage: map[string]error{},
	}
	var op rados.ReadOp
	beats, own, tombs := op.ListOmap("", beatPrefix, maxEntries), op.GetOmap(memberPrefix+g.id), op.ListOmap("", fencedPrefix, maxEntries)
	if err := g.io.Read(ctx, Object, &op); err != nil {
		return s, err
	}
	if beats.More || tombs.More {
		return s, &rados.Error{Op: "list members", Pool: g.io.Pool().Name, Object: Object, Err: fmt.Errorf("more than %d entries: %w", maxEntries, syscall.E2BIG)}
	}
	_, recorded := own.Pairs[memberPrefix+g.id]
	_, beating := beats.Pairs[beatPrefix+g.id]
	_, fenced := tombs.Pairs[fencedPrefix+g.id]
	if !recorded || !beating || fenced {
		return s, ErrRemoved
	}
	decodeAll(g, beatPrefix, beats.Pairs, s.beats, s.damage, decodeBeat)
	decodeAll(g, fencedPrefix, tombs.Pairs, s.tombs, s.damage, decodeTombstone)
	return s, g.readRecords(ctx, &s, known)
}

// readRecords reads the records of those who are new, or have changed theirs.
func (g *Group) readRecords(ctx context.Context, s *sight, known map[string]uint32) error {
	var keys []string
	for id, b := range s.beats {
		if revision, ok := known[id]; !ok || revision != b.revision {
			keys = append(keys, memberPrefix+id)
		}
	}
	if len(keys) == 0 {
		return nil
	}
	var op rados.ReadOp
	records := op.GetOmap(keys...)
	if err := g.io.Read(ctx, Object, &op); err != nil {
		return err
	}
	decodeAll(g, memberPrefix, records.Pairs, s.records, s.damage, decodeRecord)
	return nil
}
