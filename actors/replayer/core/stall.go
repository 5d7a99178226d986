package core

import "time"

// EntriesDue tells whether entries should be getting on, although no effect but reads of
// the remote journal is under way: some were read and wait here, or the primary tells of
// more. Not while they wait for their age (rbd_mirroring_replay_delay), nor for the end of
// an operation on the primary, nor in any state but REPLAYING.
func (c *Core) EntriesDue(now time.Time) bool {
	r := c.rep
	if c.state != Replaying || r.seeking > 0 {
		return false
	}
	if r.planner.Waiting().Steps > 0 {
		return true
	}
	if r.held.Delay > 0 && now.Before(r.held.Oldest.Add(r.held.Delay)) {
		return false
	}
	p, _ := c.Progress()
	return p.EntriesBehind > 0
}

// stalled ends an image that does not get on. What is under way is cancelled, as for every
// stop; the local image is closed only when it has ended.
func (c *Core) stalled(m Stalled) {
	c.stop(StopCause{Reason: NoProgress, Text: m.Text})
}
