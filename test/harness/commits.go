package harness

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// Commits watches on the primary how far each image of a load is mirrored: the commit position of the mirror's client in
// the image's journal, which is the one checkpoint there is. A look is one small read for each image, over one
// connection, so it may be taken several times a second.
type Commits struct {
	load  *Load
	ioctx *rados.IOContext
	over  chan struct{}

	mu     sync.Mutex
	lines  []commitLine // by guest
	broken error
}

// commitLine is what was seen of one image.
type commitLine struct {
	at       Position
	looked   time.Time // when the last look began
	advances []advance
}

// advance is a position that was first seen at a moment, and not yet at an earlier one.
type advance struct{ after, seen time.Time }

// WatchCommits looks at all images of a load until the test ends, with a pause between two rounds. It fails the test if a
// position ever goes back.
func WatchCommits(t testing.TB, load *Load, pause time.Duration) *Commits {
	t.Helper()
	c := &Commits{load: load, over: make(chan struct{}), lines: make([]commitLine, len(load.Guests))}
	_, c.ioctx = connect(t, load.Pool, load.Pool.Pair.Primary)
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(c.over)
		for ctx.Err() == nil {
			c.look()
			select {
			case <-ctx.Done():
			case <-time.After(pause):
			}
		}
	}()
	t.Cleanup(func() { // before the connection ends
		cancel()
		<-c.over
		if c.broken != nil {
			t.Error(c.broken)
		}
	})
	return c
}

// look reads every image's positions once.
func (c *Commits) look() {
	for n, g := range c.load.Guests {
		began := time.Now()
		_, mirror, err := positions(c.ioctx, g.ID)
		c.mu.Lock()
		line := &c.lines[n]
		switch {
		case err != nil:
			c.broken = fmt.Errorf("%s: %w", g.Spec(), err)
		case mirror.Before(line.at):
			c.broken = fmt.Errorf("%s: the mirror's commit position went back from %+v to %+v", g.Spec(), line.at, mirror)
		case line.at.Before(mirror):
			line.at = mirror
			line.advances = append(line.advances, advance{line.looked, time.Now()})
		}
		line.looked = began
		c.mu.Unlock()
	}
}

// positions reads what the primary and its mirror have committed of an image's journal.
func positions(ioctx *rados.IOContext, id string) (primary, mirror Position, err error) {
	values, err := ioctx.GetOmapValues(journal.HeaderObject(id), "", "client_", 16)
	if err != nil {
		return primary, mirror, err
	}
	for key, value := range values {
		var client journal.Client
		d := encoding.NewDecoder("journal client", value)
		client.Decode(d)
		if err := d.Err(); err != nil {
			return primary, mirror, fmt.Errorf("%s: %w", key, err)
		}
		newest, any := client.CommitPosition.Newest()
		p := Position{Object: uint64(newest.Object), Tag: uint64(newest.Tag), Entry: uint64(newest.Entry), Any: any}
		if client.ID == journal.MasterClientID {
			primary = p
		} else {
			mirror = p
		}
	}
	return primary, mirror, nil
}

// WaitCaughtUp waits until the mirror has committed all that the primary has, of every image. The load must have stopped.
func (c *Commits) WaitCaughtUp(t testing.TB, within time.Duration) {
	t.Helper()
	for _, g := range c.load.Guests {
		Eventually(t, within, func() string {
			primary, mirror, err := positions(c.ioctx, g.ID)
			if err != nil {
				return err.Error()
			}
			if !primary.Any || mirror.Before(primary) {
				return fmt.Sprintf("%s: the mirror has committed %+v, the primary %+v", g.Spec(), mirror, primary)
			}
			return ""
		})
	}
}

// advances are the times at which an image was seen to have got on.
func (c *Commits) advances(guest int) []advance {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := c.lines[guest].advances
	return all[:len(all):len(all)]
}

// Advances counts how often an image has got on since a moment.
func (c *Commits) Advances(guest int, since time.Time) (n int) {
	for _, a := range c.advances(guest) {
		if a.after.After(since) {
			n++
		}
	}
	return n
}

// grace is how long after a death what the dead had sent may still arrive.
const grace = 300 * time.Millisecond

// WaitResumed waits until an image has got on after a moment at which its owner died, and answers how long that took.
func (c *Commits) WaitResumed(t testing.TB, guest int, since time.Time, within time.Duration) time.Duration {
	t.Helper()
	var resumed time.Time
	Eventually(t, within, func() string {
		for _, a := range c.advances(guest) {
			if a.after.After(since.Add(grace)) {
				resumed = a.seen
				return ""
			}
		}
		return fmt.Sprintf("%s does not get on since %v", c.load.Guests[guest].Spec(), since.UTC().Format("15:04:05.000"))
	})
	return resumed.Sub(since)
}

// Pause is the longest time, within a span, in which an image did not get on although something had been written.
func (c *Commits) Pause(guest int, from, to time.Time) time.Duration {
	var seen []time.Time
	for _, a := range c.advances(guest) {
		seen = append(seen, a.seen)
	}
	return longestPause(seen, c.load.Guests[guest].Wrote(), from, to)
}

// longestPause is the longest time between two advances, counted from the first write that had to wait: a writer that
// stands still gives its mirror nothing to do. The times are in order.
func longestPause(advances, wrote []time.Time, from, to time.Time) (longest time.Duration) {
	last := from
	pause := func(until time.Time) {
		w, _ := slices.BinarySearchFunc(wrote, last, time.Time.Compare)
		if w < len(wrote) && wrote[w].Before(until) {
			longest = max(longest, until.Sub(wrote[w]))
		}
		last = until
	}
	for _, a := range advances {
		if a.After(from) && a.Before(to) {
			pause(a)
		}
	}
	pause(to)
	return longest
}
