package core

// A paused image holds still where it is: it is ours (lock, watches, place in the
// journal), and changes nothing.
//
// Invariant: in PAUSED no Apply and no Commit is under way, none begins, and all that was
// applied is committed. What was asked of the remote journal before may still come: at
// most one ReadEntries, which is kept, and no other follows it.

// stepPause handles the two commands, in any state.
func (c *Core) stepPause(m Msg) {
	_, c.paused = m.(Pause)
	if c.state == Paused && !c.paused {
		c.become(Replaying)
	}
	c.do(Publish{})
	c.pumpIfReplaying()
}

// pause leads to PAUSED once what has begun is done and committed. While a tag is being
// brought over it is not called: that is completed first.
func (c *Core) pause() {
	r := c.rep
	if r.applying > 0 {
		return // Applied comes back here
	}
	c.commit(false)
	if r.commit == nil {
		c.become(Paused)
	}
}
