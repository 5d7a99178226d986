package imagesync

import "context"

// turn is what one object's copy has taken of the sync's pace: before it takes anything
// else, so that a copy that waits for its turn holds no memory that others could use. How
// much it is going to read it does not know; it expects what the copies before it have read.
type turn struct {
	copier   *copier
	expected int64
	read     int64
}

// turn waits until an object may be read.
func (c *copier) turn(ctx context.Context) (*turn, error) {
	if c.Limits.Pace == nil {
		return nil, nil
	}
	t := &turn{copier: c, expected: c.guess.Load()}
	return t, c.Limits.Pace.Take(ctx, t.expected)
}

// add notes bytes that were read.
func (t *turn) add(bytes int) {
	if t != nil {
		t.read += int64(bytes)
	}
}

// over says that the copy has ended, however.
func (t *turn) over() {
	if t == nil {
		return
	}
	t.copier.Limits.Pace.Correct(t.read - t.expected)
	t.copier.guess.Store((3*t.expected + t.read) / 4) // of several at a time the last one counts: it is a guess
}
