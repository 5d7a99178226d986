package site

import (
	"errors"
	"strconv"
	"syscall"
	"time"

	cls "github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/cluster/leader"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// begin starts the workers: within a millisecond, or one after the other.
func (s *site) begin() {
	for _, at := range s.seats {
		if s.set.together {
			time.Sleep(time.Duration(s.rng.Int64N(int64(time.Millisecond) / int64(len(s.seats)))))
			s.start(at)
		}
	}
	s.sleep(s.some(10 * time.Second))
}

// some is a while.
func (s *site) some(most time.Duration) time.Duration {
	return time.Millisecond + time.Duration(s.rng.Float64()*float64(most))
}

// spell is for how long something lasts: often short, sometimes long.
func (s *site) spell() time.Duration {
	return s.some([]time.Duration{time.Second, 3 * time.Second, 6 * time.Second, 25 * time.Second}[s.rng.IntN(4)])
}

// anyone is a worker that has not ended; nil if there is none.
func (s *site) anyone() *worker {
	all := s.alive()
	if len(all) == 0 {
		return nil
	}
	return all[s.rng.IntN(len(all))]
}

// chief is a worker that takes itself for the leader, or any if there is none.
func (s *site) chief() *worker {
	for _, w := range s.alive() {
		w.mu.Lock()
		leads := w.leads
		w.mu.Unlock()
		if leads {
			return w
		}
	}
	return s.anyone()
}

// victim is a worker, and often the leader.
func (s *site) victim() *worker {
	if s.rng.IntN(3) == 0 {
		return s.chief()
	}
	return s.anyone()
}

// trouble is the time in which things go wrong.
func (s *site) trouble() {
	for range s.set.actions {
		if s.oracle.violation() != "" {
			return
		}
		switch {
		case s.set.calm:
			s.death()
		case s.set.headless && s.rng.IntN(2) == 0:
			s.beheads()
		case s.set.deaf && s.rng.IntN(4) == 0:
			s.deafens()
		default:
			s.act()
		}
		s.sleep(s.some(s.set.gap))
	}
}

func (s *site) act() {
	switch n := s.rng.IntN(100); {
	case n < 14:
		s.pauses()
	case n < 30:
		s.partition()
	case n < 42:
		s.death()
	case n < 50:
		s.stalls()
	case n < 60:
		s.changesWeather()
	case n < 64:
		s.losesWatches()
	case n < 68:
		s.blocklists()
	case n < 73:
		s.trace.Add("the leader's lock is broken by hand")
		s.breaksLeadersLock()
	case n < 77:
		if w := s.chief(); w != nil {
			s.trace.Add("%s is asked to lead no longer", w)
			w.Release()
		}
	case n < 82:
		s.jumps()
	case n < 90:
		s.comesAndGoes()
	case n < 94:
		if w := s.anyone(); w != nil {
			w.leave()
		}
	default:
		s.arm()
	}
}

// pauses stops a worker for a while. Sometimes its daemon starts another one meanwhile.
func (s *site) pauses() {
	w := s.victim()
	if w == nil {
		return
	}
	long, replaced := s.spell(), s.rng.IntN(5) == 0
	s.trace.Add("%s is paused for %v, replaced: %t", w, long, replaced)
	w.freeze()
	s.later(long, func() {
		s.trace.Add("%s goes on", w)
		w.thaw()
	})
	if replaced && w.seat.worker == w {
		s.sleep(s.some(2 * time.Second))
		if w.seat.worker == w && !w.isDead() {
			s.start(w.seat)
			s.later(s.spell(), func() { w.kill(time.Millisecond) })
		}
	}
}

var parts = []part{everything, everything, everything, members, members, leaders, headers | contents, everything &^ members, monitors}

func (s *site) partition() {
	w := s.victim()
	if w == nil {
		return
	}
	from, long := parts[s.rng.IntN(len(parts))], s.spell()
	s.trace.Add("%s is cut off from %05b for %v", w, from, long)
	w.isolate(from)
	s.later(long, func() {
		s.trace.Add("%s is not cut off any more", w)
		w.heal()
	})
}

// beheads cuts a worker off from the images' headers for so long that its watches end, and
// has the others' number change, so that its images are given to others.
func (s *site) beheads() {
	w := s.victim()
	if w == nil {
		return
	}
	from, long := []part{headers, headers | contents}[s.rng.IntN(2)], 10*time.Second+s.some(50*time.Second)
	s.trace.Add("%s is cut off from %05b for %v", w, from, long)
	w.isolate(from)
	s.later(long, w.heal)
	s.sleep(s.some(3 * time.Second))
	if s.rng.IntN(2) == 0 {
		s.comesAndGoes()
	} else if other := s.anyone(); other != w {
		other.leave()
	}
	s.sleep(s.some(20 * time.Second))
}

// death kills a worker, or all of a host's.
func (s *site) death() {
	w := s.victim()
	if w == nil {
		return
	}
	linger := s.some(200 * time.Millisecond)
	if s.rng.IntN(4) > 0 {
		w.kill(linger)
		return
	}
	long := s.spell()
	s.trace.Add("host %d is down for %v", w.seat.host, long)
	for _, at := range s.seats {
		if at.host == w.seat.host && at.worker != nil {
			at.worker.kill(linger)
			at.due = time.Now().Add(long)
		}
	}
}

// stalls stops the cluster for everybody.
func (s *site) stalls() {
	long := s.some(12 * time.Second)
	s.trace.Add("the cluster stands still for %v", long)
	stall := make(chan struct{})
	s.faults.with(func() { s.faults.stall = stall })
	began := time.Now()
	s.sleep(long)
	s.faults.with(func() { s.faults.stall = nil })
	for _, w := range s.alive() {
		w.stalled(began)
	}
	close(stall)
}

func (s *site) changesWeather() {
	var w weather
	if s.rng.IntN(2) == 0 {
		w = weather{
			fail: 0.1 * s.rng.Float64(), hide: 0.1 * s.rng.Float64(), slow: 0.2 * s.rng.Float64(),
			slowness: s.some(4 * time.Second), lost: 0.3 * s.rng.Float64(),
		}
	}
	s.trace.Add("weather: %+v", w)
	s.faults.with(func() { s.faults.now = w })
}

func (s *site) losesWatches() {
	if w := s.anyone(); w != nil {
		s.trace.Add("%s loses its watches", w)
		w.disturbed()
		w.client.LoseWatches()
	}
}

func (s *site) blocklists() {
	w := s.victim()
	if w == nil {
		return
	}
	if s.rng.IntN(3) == 0 {
		s.strikesOff(w)
		return
	}
	s.trace.Add("%s is blocklisted by hand", w)
	s.check(s.admin[""].Cluster().Blocklist(s.ctx, w.client.Addresses(), time.Hour))
	s.oracle.fenced(w.client.Addresses())
}

// strikesOff removes a worker from the members, and does not have it refused: only its own
// understanding ends it.
func (s *site) strikesOff(w *worker) {
	s.trace.Add("%s is struck off the members by hand", w)
	w.mu.Lock()
	w.struck = true
	w.mu.Unlock()
	id := strconv.FormatUint(w.client.InstanceID(), 10)
	var op rados.WriteOp
	op.Exec(cls.Break(memberLock, cls.LockerID{Entity: cls.ClientName(w.client.InstanceID()), Cookie: id}))
	op.RemoveOmap(memberPrefix+id, beatPrefix+id)
	if err := s.admin[""].Write(s.ctx, membership.Object, &op); !errors.Is(err, syscall.ENOENT) { // it is none yet, or any more
		s.check(err)
	}
}

// breaksLeadersLock does what an operator may: the leader is not fenced by it.
func (s *site) breaksLeadersLock() {
	query := cls.GetInfo(cls.RBDName)
	var op rados.ReadOp
	info := op.Exec(query.Call)
	if s.admin[""].Read(s.ctx, leader.Object, &op) != nil {
		return // nobody was there yet
	}
	held, err := query.Decode(info.Data)
	s.check(err)
	for _, l := range held.Lockers {
		if err := rados.Tell(s.ctx, s.admin[""], leader.Object, cls.Break(cls.RBDName, l.LockerID)); !errors.Is(err, syscall.ENOENT) {
			s.check(err)
		}
	}
}

// jumps sets a host's clock.
func (s *site) jumps() {
	host, to := s.rng.IntN(s.set.hosts), time.Duration(s.rng.IntN(12*3600)-6*3600)*time.Second
	s.trace.Add("the clock of host %d is off by %v", host, to)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.skew[host] = to
}

// deafens has one host, or all, not hear the primary's cluster for a while. Of an outage all
// hear within half a minute, and of its end.
func (s *site) deafens() {
	long, one := 20*time.Second+s.some(3*time.Minute), s.rng.IntN(s.set.hosts)
	outage := s.rng.IntN(3) == 0
	s.trace.Add("host %d does not hear the primary's cluster for %v; nor do the others: %t", one, long, outage)
	for host := range s.set.hosts {
		if host != one && !outage {
			continue
		}
		begins := time.Duration(0)
		if outage {
			begins = s.some(30 * time.Second)
		}
		set := func(deaf bool) func() {
			return func() {
				s.mu.Lock()
				defer s.mu.Unlock()
				s.deaf[host] = deaf && !s.over
			}
		}
		s.later(begins, set(true))
		s.later(begins+long, set(false))
	}
	s.sleep(s.some(2 * long))
}

// comesAndGoes has images mirrored, and others not.
func (s *site) comesAndGoes() {
	for range 1 + s.rng.IntN(3) {
		if now := len(s.mirrored()); now > 1 && s.rng.IntN(2) == 0 {
			s.removeImage(s.rng.IntN(now))
		} else {
			s.addImage()
		}
	}
	s.trace.Add("mirrored are %v", s.mirrored())
}

// strike is what hits a leader in the middle of a decision.
type strike struct {
	kind int
	long time.Duration
}

// arm has the next decisions end badly.
func (s *site) arm() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for range 1 + s.rng.IntN(2) {
		s.armed = append(s.armed, strike{s.rng.IntN(6), s.spell()})
	}
	s.trace.Add("the next decisions end badly: %v", s.armed)
}

// strikes is called when a leader is about to write the map.
func (s *site) strikes(w *worker, _ mem.Op) {
	s.mu.Lock()
	if len(s.armed) == 0 || s.over {
		s.mu.Unlock()
		return
	}
	now := s.armed[0]
	s.armed = s.armed[1:]
	s.mu.Unlock()
	s.trace.Add("%s is struck in the middle of a decision: %v", w, now)
	switch now.kind {
	case 0:
		s.breaksLeadersLock()
	case 1:
		w.freeze()
		s.later(now.long, w.thaw)
	case 2:
		w.isolate(everything)
		s.later(now.long, w.heal)
	case 3:
		w.kill(now.long / 10)
	case 4:
		w.Release()
		w.freeze()
		s.later(now.long/4, w.thaw)
	case 5:
		// Its lock is broken and another one leads before the write arrives.
		w.freeze()
		s.breaksLeadersLock()
		s.later(now.long, w.thaw)
	}
}

// calms ends the trouble. What is dead stays so, until its daemon starts another.
func (s *site) calms() {
	s.trace.Add("the trouble is over")
	s.mu.Lock()
	s.over, s.deaf = true, map[int]bool{}
	s.mu.Unlock()
	s.faults.with(func() { s.faults.now = weather{} })
	for _, w := range s.alive() {
		w.thaw()
		w.heal()
	}
	if s.set.lonely {
		at := s.seats[s.rng.IntN(len(s.seats))]
		at.empty = true
		if at.worker != nil {
			at.worker.kill(time.Millisecond)
		}
	}
	for _, w := range s.alive() {
		if w.seat.worker != w {
			w.kill(time.Millisecond) // its daemon has started another one in its place
		}
	}
}
