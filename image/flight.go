package image

import (
	"context"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"
)

// flight runs functions at the same time, bounded by count and by bytes.
type flight struct {
	ctx   context.Context
	group *errgroup.Group
	bytes *semaphore.Weighted
	limit int64

	shared Credit // nil: none
}

func newFlight(ctx context.Context, l Limits) *flight {
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(l.Operations)
	return &flight{ctx: ctx, group: group, bytes: semaphore.NewWeighted(l.Bytes), limit: l.Bytes, shared: l.Credit}
}

// start runs fn as soon as there is room; it does nothing after a failure, which
// wait reports.
func (f *flight) start(bytes int64, fn func(ctx context.Context) error) {
	weight := min(bytes, f.limit)
	if err := f.bytes.Acquire(f.ctx, weight); err != nil {
		f.group.Go(func() error { return err })
		return
	}
	if f.shared != nil {
		// Those that hold some of it are under way, and need no more of it to end.
		if err := f.shared.Take(f.ctx, bytes); err != nil {
			f.bytes.Release(weight)
			f.group.Go(func() error { return err })
			return
		}
	}
	f.group.Go(func() error {
		defer f.bytes.Release(weight)
		if f.shared != nil {
			defer f.shared.Give(bytes)
		}
		if err := f.ctx.Err(); err != nil {
			return err
		}
		return fn(f.ctx)
	})
}

// wait returns the first error when everything that was started is over.
func (f *flight) wait() error { return f.group.Wait() }
