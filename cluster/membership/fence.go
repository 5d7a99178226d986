package membership

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Fence makes the death of a member certain, and known to all: its client is blocklisted,
// the OSD map is waited for, and then, in one operation, its lock is broken, its record
// removed and its entry as fenced written. One that was fenced or left already is no error.
// The pool's leader does it, for what is in View.Dead; more than one may, it comes to the
// same.
//
// Errors, besides those of RADOS: ErrAlive if the member has given a sign of life since it
// was found dead, or is not taken for dead at all; ErrNoMember if this process is not Valid,
// for who was paused itself knows nothing.
func (g *Group) Fence(ctx context.Context, id string) error {
	if !g.Valid() {
		return fmt.Errorf("fence member %s: %w", id, ErrNoMember)
	}
	if err := g.fence(ctx, id); err != nil {
		return fmt.Errorf("fence member %s: %w", id, err)
	}
	nudge(g.poked)
	g.announce()
	return nil
}

func (g *Group) fence(ctx context.Context, id string) error {
	last, cause, err := g.condemned(id)
	if err != nil {
		return err
	}
	c, err := g.examine(ctx, id)
	if err != nil {
		return err
	}
	switch {
	case c.locker == nil && !c.beating:
		return nil // it has left, or somebody has fenced it
	case c.beating && !c.damaged && c.beat != last:
		return ErrAlive
	case c.locker == nil:
		return g.sweep(ctx, id) // its lock was broken by hand: it cannot beat
	}
	address := c.locker.Address.Blocklist()
	switch {
	case c.locker.Address.IsBlank():
		return errors.New("it left no address to blocklist")
	case g.isOwn(c.locker.Address):
		// Its process is gone, for it had the address that is ours now: to fence it
		// would be to fence us.
	default:
		g.opt.Log.Warn().Str("member", id).Str("address", address).Str("host", c.record.member.Host).Str("cause", cause).
			Msg("a member is dead: blocklisting it")
		if err := g.io.Cluster().Blocklist(ctx, address, g.opt.BlocklistExpire); err != nil {
			return fmt.Errorf("blocklist %s: %w", address, err)
		}
	}
	return g.bury(ctx, id, c, tombstone{record: c.record, by: g.id, address: address, when: time.Now(), cause: cause})
}

// condemned gives the last heartbeat that was seen of a member that is taken for dead.
func (g *Group) condemned(id string) (last beat, cause string, err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	r := g.table.rows[id]
	if r == nil {
		return beat{}, "", nil // gone, or never seen: what is stored will tell
	}
	if !r.dead {
		return beat{}, "", ErrAlive
	}
	return r.beat, r.cause, nil
}

// corpse is what is stored of a member.
type corpse struct {
	locker *cls.Locker // nil: it has no lock
	// beating: it has a heartbeat, which is beat; unless it is damaged, and so no sign
	// of life.
	beating, damaged bool
	beat             beat
	record           record
}

// examine reads what there is of a member, at one moment.
func (g *Group) examine(ctx context.Context, id string) (c corpse, err error) {
	query := cls.GetInfo(lockName)
	var op rados.ReadOp
	info, pairs := op.Exec(query.Call), op.GetOmap(beatPrefix+id, memberPrefix+id)
	if err := g.io.Read(ctx, Object, &op); err != nil {
		return c, err
	}
	lockers, err := query.Decode(info.Data)
	if err != nil {
		return c, g.corrupt(err)
	}
	if i := slices.IndexFunc(lockers.Lockers, func(l cls.Locker) bool { return l.Cookie == id }); i >= 0 {
		c.locker = &lockers.Lockers[i]
	}
	if value, ok := pairs.Pairs[beatPrefix+id]; ok {
		var err error
		c.beat, err = decodeBeat(beatPrefix+id, id, value)
		c.beating, c.damaged = true, err != nil
	}
	c.record = record{member: Member{ID: id}}
	if value, ok := pairs.Pairs[memberPrefix+id]; ok {
		if r, err := decodeRecord(memberPrefix+id, id, value); err == nil {
			c.record = r
		}
	}
	if c.record.member.Identity == "" && c.locker != nil {
		c.record.member.Identity = c.locker.Description
	}
	return c, nil
}

// isOwn tells whether an address is that of our own client.
func (g *Group) isOwn(a cls.EntityAddr) bool {
	own, err := cls.ParseEntityAddrs(g.io.Cluster().Addresses())
	return err == nil && slices.ContainsFunc(own, a.SameInstance)
}

// bury puts the tombstone in the place of the record.
func (g *Group) bury(ctx context.Context, id string, c corpse, f tombstone) error {
	op := g.asserted()
	op.Exec(cls.Break(lockName, c.locker.LockerID))
	op.RemoveOmap(append(g.oldTombs(), memberPrefix+id, beatPrefix+id)...)
	op.SetOmap(map[string][]byte{fencedPrefix + id: bytesOf(f)})
	err := g.io.Write(ctx, Object, &op)
	if errors.Is(err, syscall.ENOENT) {
		return nil // somebody else was faster, or it has left
	}
	return err
}

// sweep removes what is left of a member that has no lock.
func (g *Group) sweep(ctx context.Context, id string) error {
	op := g.asserted()
	op.RemoveOmap(memberPrefix+id, beatPrefix+id)
	return g.io.Write(ctx, Object, &op)
}

// oldTombs are the keys of the oldest entries, when there are too many.
func (g *Group) oldTombs() (keys []string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, id := range g.table.oldestTombs(maxTombs - 1) {
		keys = append(keys, fencedPrefix+id)
	}
	return keys
}
