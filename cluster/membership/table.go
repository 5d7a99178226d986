package membership

import (
	"fmt"
	"maps"
	"slices"
	"time"
)

// table is what one member knows of all: the pure part, without clock and I/O.
type table struct {
	self string
	// ttl is how long a silent member is believed to live; roundCap is how much of that
	// one sight can count.
	ttl, roundCap time.Duration
	// fencedFor is how long fenced members are remembered.
	fencedFor time.Duration

	rows  map[string]*row
	tombs map[string]*tomb

	ownBeat beat      // own beat in the newest sight
	ownAt   time.Time // start of the newest sight in which it had advanced
	frozen  bool
	epoch   uint64
	damage  map[string]error
}

// row is a member that has a beat.
type row struct {
	record record
	beat   beat
	silent time.Duration // for which its beat has not changed while ours did
	dead   bool
	gone   bool // dead, and its process is known to be gone: no late beat revives it
	since  time.Time
	cause  string
}

// tomb is a member that was fenced.
type tomb struct {
	tombstone
	since time.Time // when this observer saw it first, by its clock
}

// sight is what was read of the object at one moment, and the records that were new.
type sight struct {
	start   time.Time // when the reading began
	beats   map[string]beat
	records map[string]record    // of new or changed members
	tombs   map[string]tombstone // all of them
	damage  map[string]error     // what could not be decoded, by key
}

func newTable(self string, beat, ttl, fencedFor time.Duration) *table {
	return &table{
		self: self, ttl: ttl, roundCap: beat * 3 / 2, fencedFor: fencedFor,
		rows: map[string]*row{}, tombs: map[string]*tomb{}, frozen: true,
	}
}

// revisions are the revisions of the records that are known, by id.
func (t *table) revisions() map[string]uint32 {
	known := make(map[string]uint32, len(t.rows))
	for id, r := range t.rows {
		known[id] = r.record.revision
	}
	return known
}

// observe takes a sight in, and tells whether the view changed. confirmed says that our own
// heartbeats get through, too; otherwise the view freezes as it is.
func (t *table) observe(s sight, confirmed bool) (changed bool) {
	if !confirmed {
		return t.freeze()
	}
	changed, t.frozen = t.frozen, false
	passed, blind := t.passed(s)
	for id, r := range t.rows {
		if _, there := s.beats[id]; !there && s.damage[beatPrefix+id] == nil && s.damage[memberPrefix+id] == nil {
			delete(t.rows, id)
			changed = true
			continue
		}
		if blind {
			r.silent = 0
		}
	}
	for id, b := range s.beats {
		changed = t.beats(id, b, s, passed) || changed
	}
	changed = t.entomb(s) || changed
	changed = t.noteDamage(s.damage) || changed
	if changed {
		t.epoch++
	}
	return changed
}

// passed is the time since the last sight that counts as silence of those that have not
// moved: what went by while our own beats got through, and of one round no more than
// roundCap, so that it takes several sights to declare a death. blind is that we could not
// see for so long that nobody's silence means anything.
func (t *table) passed(s sight) (passed time.Duration, blind bool) {
	own := s.beats[t.self]
	first := t.ownAt.IsZero()
	if own == t.ownBeat && !first {
		return 0, false
	}
	if !first {
		passed = s.start.Sub(t.ownAt)
	}
	t.ownBeat, t.ownAt = own, s.start
	if passed > t.ttl {
		return 0, true
	}
	return min(passed, t.roundCap), false
}

// beats takes in what was seen of one member.
func (t *table) beats(id string, b beat, s sight, passed time.Duration) (changed bool) {
	r := t.rows[id]
	if r == nil {
		rec, ok := s.records[id]
		if !ok {
			return false // its record comes with the next sight
		}
		t.rows[id] = &row{record: rec, beat: b}
		return true
	}
	if rec, ok := s.records[id]; ok && rec.revision != r.record.revision {
		r.record, changed = rec, true
	}
	if b != r.beat || id == t.self {
		r.beat, r.silent = b, 0
		if r.dead && !r.gone {
			r.dead, changed = false, true
		}
		return changed
	}
	r.silent += passed
	if !r.dead && r.silent >= t.ttl {
		r.dead, r.since, changed = true, s.start, true
		r.cause = fmt.Sprintf("no heartbeat for %v", r.silent.Round(100*time.Millisecond))
	}
	return changed
}

// entomb takes in who was fenced.
func (t *table) entomb(s sight) (changed bool) {
	for id := range t.tombs {
		if _, there := s.tombs[id]; !there && s.damage[fencedPrefix+id] == nil {
			delete(t.tombs, id)
			changed = true
		}
	}
	for id, f := range s.tombs {
		if t.tombs[id] == nil {
			t.tombs[id] = &tomb{tombstone: f, since: s.start}
			changed = true
		}
	}
	return changed
}

func (t *table) noteDamage(damage map[string]error) (changed bool) {
	changed = len(damage) != len(t.damage)
	for key := range damage {
		changed = changed || t.damage[key] == nil
	}
	t.damage = damage
	return changed
}

// identities are those of the others of which it is not known that their processes are gone.
func (t *table) identities() map[string]struct{} {
	all := make(map[string]struct{}, len(t.rows))
	for id, r := range t.rows {
		if id != t.self && !r.gone && r.record.member.Identity != "" {
			all[r.record.member.Identity] = struct{}{}
		}
	}
	return all
}

// judge asks of every other living member whether its process is known to be dead.
func (t *table) judge(now time.Time, knownDead func(identity string) bool) (changed bool) {
	for id, r := range t.rows {
		if id == t.self || r.gone || r.record.member.Identity == "" || !knownDead(r.record.member.Identity) {
			continue
		}
		if !r.dead {
			r.dead, r.since, r.cause, changed = true, now, "its process is gone", true
		}
		r.gone = true
	}
	if changed {
		t.epoch++
	}
	return changed
}

// freeze is told when nothing was seen, or our own beat did not get through, for TTL.
func (t *table) freeze() (changed bool) {
	if t.frozen {
		return false
	}
	t.frozen = true
	t.epoch++
	return true
}

// expired are the ids of fenced members that are to be forgotten, if it is this member's
// duty to see to it: that of the living one with the lowest id.
func (t *table) expired(now time.Time) (ids []string) {
	for id, r := range t.rows {
		if !r.dead && compareIDs(id, t.self) < 0 {
			return nil
		}
	}
	for id, f := range t.tombs {
		if now.Sub(f.since) >= t.fencedFor {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, compareIDs)
	return ids
}

// oldestTombs are the ids of those fenced members that are too many, if keep may stay.
func (t *table) oldestTombs(keep int) []string {
	ids := slices.Collect(maps.Keys(t.tombs))
	slices.SortFunc(ids, func(a, b string) int {
		if c := t.tombs[a].since.Compare(t.tombs[b].since); c != 0 {
			return c
		}
		return compareIDs(a, b)
	})
	return ids[:max(0, len(ids)-keep)]
}

func (t *table) view() View {
	v := View{Frozen: t.frozen, Epoch: t.epoch}
	for _, r := range t.rows {
		if r.dead {
			v.Dead = append(v.Dead, Dead{Member: r.record.member.clone(), Since: r.since, Cause: r.cause})
		} else {
			v.Members = append(v.Members, r.record.member.clone())
		}
	}
	for _, f := range t.tombs {
		v.Dead = append(v.Dead, Dead{Member: f.record.member.clone(), Since: f.since, Fenced: true, Cause: f.cause})
	}
	slices.SortFunc(v.Members, func(a, b Member) int { return compareIDs(a.ID, b.ID) })
	slices.SortFunc(v.Dead, func(a, b Dead) int { return compareIDs(a.ID, b.ID) })
	for _, err := range t.damage {
		v.Damaged = append(v.Damaged, err)
	}
	slices.SortFunc(v.Damaged, func(a, b error) int { return compareIDs(a.Error(), b.Error()) })
	return v
}
