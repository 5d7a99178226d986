package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/replayer"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/rhythm"
	"github.com/rbdwarden/rbdwarden/supervision/memory"
)

// budgets bound what all images of a worker have in flight together.
type budgets struct {
	limit int64          // of the worker's memory, in bytes; 0: none
	read  *memory.Budget // what was read and is not durable here; nil: no bound, for tests
	apply *memory.Budget // what is on its way to the local cluster
	full  int64          // size of read without pressure, in bytes
}

// boundless stands for no bound on bytes (rbd_warden_inject_no_budget).
const boundless = 1 << 40

func newBudgets(o config.Warden, limit int64) *budgets {
	b := &budgets{limit: limit, full: memory.BudgetFor(int64(o.BytesInFlight), limit)}
	if !o.InjectNoBudget {
		b.read, b.apply = memory.NewBudget(b.full), memory.NewBudget(b.full/2)
	}
	return b
}

// image bounds one image: by its own bounds, and by the worker's.
func (b *budgets) image(r *replayer.Resources, bytes int64) (buffer int64) {
	if b.read == nil {
		r.Limits.Bytes, r.Tail.Budget = boundless, boundless
		return boundless
	}
	bytes = min(bytes, b.full)
	r.Limits.Bytes, r.Tail.Budget = bytes/2, bytes/2
	r.NewCredit = func() replayer.Credit { return b.read.Client() }
	r.NewUrgentCredit = func() replayer.Credit { return b.read.UrgentClient() }
	r.NewApplyCredit = func() replayer.Credit { return b.apply.Client() }
	return bytes / 2
}

// report tells how the budget is used.
func (b *budgets) report() *report.Budget {
	if b.read == nil {
		return nil
	}
	s := b.read.State()
	return &report.Budget{Used: s.Used, Limit: s.Limit, Full: b.full, Peak: s.Peak, Waiting: s.Waiting}
}

// govern makes the budgets smaller while memory is short, and larger again, until ctx ends.
func (b *budgets) govern(ctx context.Context, log zerolog.Logger) {
	g := memory.NewGovernor(b.full)
	tick := rhythm.NewTicker(time.Second)
	defer tick.Stop()
	for was := b.full; ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		tick.Next()
		p := memory.Measure(b.limit)
		boundHeap(b.limit, p.Resident)
		if b.read == nil {
			continue
		}
		now := g.Step(p)
		if now == was {
			continue
		}
		b.read.SetLimit(now)
		b.apply.SetLimit(now / 2)
		if was == b.full {
			log.Warn().Float64("stalled_percent", p.Stall).Int64("resident_bytes", p.Resident).Int64("limit_bytes", p.Limit).
				Msg("memory is short: images read less ahead")
		} else if now == b.full {
			log.Info().Msg("memory is not short any more")
		}
		was = now
	}
}

// boundHeap makes Go's garbage collector work harder as the process nears its limit,
// instead of taking twice the live heap. What librados has is not Go's to give back, so
// it lowers Go's part of the limit.
func boundHeap(limit, resident int64) {
	if limit <= 0 {
		return
	}
	s := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(s)
	others := max(resident-int64(s[0].Value.Uint64()-s[1].Value.Uint64()), 0)
	debug.SetMemoryLimit(max(limit/10*9-others, limit/4))
}
