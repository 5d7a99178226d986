package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/site"
	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	"github.com/rbdwarden/rbdwarden/cluster/identity"
	"github.com/rbdwarden/rbdwarden/cluster/transport"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/messages"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/rhythm"
	"github.com/rbdwarden/rbdwarden/supervision"
	"github.com/rbdwarden/rbdwarden/supervision/memory"
	"github.com/rbdwarden/rbdwarden/supervision/worker"
)

func timeouts(o config.Options) librados.Timeouts {
	return librados.Timeouts{Mount: o.Warden.ConnectTimeout, Mon: o.Warden.MonTimeout, OSD: o.Warden.OSDTimeout}
}

// mirror is a worker's work, until ctx ends: one actor system, whose root is the site.
func mirror(ctx context.Context, cfg config.Config, log zerolog.Logger, s seams) error {
	removeStaleLibrarySockets(cfg.Process)
	c, options, err := connect(ctx, cfg, librarySocket(cfg.Process), log)
	if err != nil {
		return err
	}
	defer c.Close()
	log.Info().Str("fsid", c.FSID()).Uint64("client", c.InstanceID()).Msg("connected")
	self, err := identity.Self()
	if err != nil {
		return fmt.Errorf("identity of this process: %w", err)
	}
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("name of this host: %w", err)
	}
	rhythm.Begin()
	go memory.Rest(ctx, os.Getenv)
	shareProcessors(options.Warden.WorkerCount())
	shares, err := placementOptions(options)
	if err != nil {
		return err
	}
	if err := transport.Check(options.Warden.BindAddress); err != nil {
		return fmt.Errorf("rbd_warden_bind_addr: %w", err)
	}
	w := &wiring{
		placement: shares,
		cfg:       cfg, options: options, local: c, socket: socketOf(c), self: self, log: log, host: host, index: s.Index,
		seat:      coordinator.Seat(seatHost(host), os.Getppid(), s.Index),
		parties:   map[int64]*party{},
		drained:   cfg.Drains[s.Index],
		syncs:     newSyncSlots(int(options.ConcurrentImageSyncs), options.Warden.WorkerCount(), s.Index),
		deletions: newSlots(shareOf(int(options.ConcurrentImageDeletions), options.Warden.WorkerCount(), s.Index)),
		budgets:   newBudgets(options.Warden, s.MemoryLimit),
		limits:    newLimits(options.Warden, options.Warden.WorkerCount(), cfg.Limits),
		past:      pastOf(s),
		tracer:    newTracer(s.Tell),
		ledger:    supervision.NewLedger(s.Book, s.Ended),
		inject:    newInjection(options.Warden.InjectPanic),
	}
	ends := make(chan error, 1)
	end := func(err error) {
		select {
		case ends <- err:
		default: // it ends already, of something else
		}
	}
	w.jury = newJury(probeCluster(cfg), overdueCalls(options.Warden), func(why string) { end(escalated(why)) }, log)
	beside, over := context.WithCancel(context.WithoutCancel(ctx))
	defer over()
	go w.tracer.Run(beside)
	go w.jury.Run(beside)

	governed, stop := context.WithCancel(ctx)
	defer stop()
	go w.budgets.govern(governed, log)
	system := actor.NewActorSystem(actor.WithLoggerFactory(actorLogger(log)))
	if network, err := w.newNetwork(system, s.Ask); err != nil {
		// Images matter more than who wants to look at all of them together.
		log.Error().Err(err).Msg("cannot reach other daemons")
	} else {
		w.network = network
		go network.transport.Run(beside)
	}
	root := system.Root.Spawn(site.Props(w.site(s.Ready, end)))
	if n := w.network; n != nil {
		m := measuring{pools: func() ([]report.Pool, error) { return w.pools(system, root) }}
		n.mu.Lock()
		n.measure = m.Loads
		n.mu.Unlock()
	}
	s.Serve(worker.Hooks{Report: func(ctx context.Context) ([]byte, error) {
		return w.report(ctx, system, root)
	}, Call: func(ctx context.Context, r *controlv1.CallRequest) (string, []byte, error) {
		return w.call(ctx, system, root, r)
	}, Command: w.squad(system, root).Do})

	select {
	case <-ctx.Done():
		return w.stop(system, root, s.Deadline())
	case err := <-ends:
		// Invariant 3: end at once; the next worker has a new identity.
		if rados.Classify(err) == rados.Fenced {
			err = fmt.Errorf("this client was fenced: %w", err)
		}
		return err
	}
}

// pastOf is what became of the workers before this one.
func pastOf(s seams) messages.Past {
	record := s.Book.Records[report.LevelWorker][workerName(s.Index)]
	return messages.Past{Restarts: s.Restarts, LastCause: s.LastCause, Ends: record.Ends, Reasons: record.Reasons}
}

// workerName names a worker in ledgers.
func workerName(index int) string { return fmt.Sprintf("worker %d", index) }

// shareOf is a worker's share of a bound that holds for all workers of the daemon together; 0
// is none. Every worker gets at least one.
func shareOf(bound, workers, index int) int {
	if bound <= 0 {
		return bound
	}
	share := bound / workers
	if index < bound%workers {
		share++
	}
	return max(1, share)
}

// stop lets go of everything, in order, for as long as the daemon waits.
func (w *wiring) stop(system *actor.ActorSystem, root *actor.PID, deadline time.Time) error {
	left := time.Until(deadline) - time.Second
	if deadline.IsZero() || left < time.Second {
		left = max(left, time.Second)
	}
	_, err := system.Root.RequestFuture(root, site.Stop{}, left).Result()
	w.background.Wait()
	if err != nil {
		return errors.New("not everything was let go in time")
	}
	return nil
}

// report is the worker's report for the daemon.
func (w *wiring) report(ctx context.Context, system *actor.ActorSystem, root *actor.PID) ([]byte, error) {
	patience := 2 * time.Second
	if d, ok := ctx.Deadline(); ok {
		patience = min(patience, time.Until(d))
	}
	r, err := system.Root.RequestFuture(root, site.Snapshot{}, patience).Result()
	if err != nil {
		return nil, &rados.Error{Op: "report", Err: err}
	}
	pools, _ := r.([]report.Pool)
	drained, parts := w.parts()
	syncs, notes := w.syncs.Report()
	return json.Marshal(report.Worker{Drained: drained, Parts: parts, Member: w.memberID(), FSID: w.local.FSID(), Pools: pools, Syncs: syncs, Notes: notes, Replayed: w.meter.Read(),
		LocalSocket: w.socket, Deletions: w.deletions.Report(), Budget: w.budgets.report(), Limits: w.limits.Report(),
	})
}
