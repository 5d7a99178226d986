package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/replayer"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision/pace"
)

// limitsCommand is a call of a worker: what the daemon knows of limits, for what the worker
// makes of them.
const limitsCommand = "limits"

// limitsState is what a daemon tells its worker of limits: all of it, each time, so that it
// does not matter what of it the worker has heard before.
type limitsState struct {
	Wishes config.LimitWishes `json:"wishes,omitempty"`
	// Parts are this worker's parts of the limits that it shares with others, by their
	// names. One that is not there is an equal part.
	Parts map[string]float64 `json:"parts,omitempty"`
}

// limits are a worker's limits on bytes a second: the daemon's and the pools', of which it
// has a part, and its images'.
type limits struct {
	workers int // of the daemon

	mu     sync.Mutex
	state  limitsState
	daemon *limit
	pools  map[string]*limit
	images map[config.LimitKey]*limit
}

// limit is what limits one thing.
type limit struct {
	key     config.LimitKey
	set     config.ImageLimits // by options and metadata
	buckets map[config.LimitKind]*pace.Bucket
	users   int
}

func newLimits(o config.Warden, workers int, wishes config.LimitWishes) *limits {
	l := &limits{
		workers: workers, state: limitsState{Wishes: wishes}, pools: map[string]*limit{}, images: map[config.LimitKey]*limit{},
	}
	l.daemon = l.add(config.LimitKey{})
	for _, k := range config.LimitKinds {
		l.SetDaemon(k, o.Limit(k))
	}
	return l
}

// add makes what limits a thing.
func (l *limits) add(key config.LimitKey) *limit {
	t := &limit{key: key, set: config.ImageLimits{}, buckets: map[config.LimitKind]*pace.Bucket{}}
	for _, k := range config.LimitKinds {
		t.buckets[k] = pace.NewBucket(0)
	}
	l.settle(t)
	return t
}

// inForce is the whole limit of a kind, and who has set it: "" for nobody.
func (l *limits) inForce(t *limit, k config.LimitKind) (rate uint64, by string) {
	if wish, ok := l.state.Wishes.Of(t.key, k); ok {
		return wish.Rate, wish.Words
	}
	if rate, ok := t.set[k]; ok && rate > 0 {
		return rate, byOption
	}
	return 0, ""
}

// byOption stands for who has set a limit that no command has.
const byOption = "option"

// part is how much of a limit is this worker's.
func (l *limits) part(t *limit, k config.LimitKind) float64 {
	if t.key.GlobalID != "" {
		return 1
	}
	if part, ok := l.state.Parts[limitName(t.key, k)]; ok {
		return part
	}
	return 1 / float64(l.workers)
}

// limitName names a limit of a kind between a daemon and its workers.
func limitName(key config.LimitKey, k config.LimitKind) string {
	return fmt.Sprintf("%s %s/%s/%s", k, key.Pool, key.Namespace, key.GlobalID)
}

// settle has the buckets go by what is in force.
func (l *limits) settle(t *limit) {
	for k, b := range t.buckets {
		rate := int64(0)
		if whole, _ := l.inForce(t, k); whole > 0 {
			rate = max(1, int64(min(float64(whole)*l.part(t, k), math.MaxInt64/2)))
		}
		if rate != b.Rate() {
			b.SetRate(rate)
		}
	}
}

// SetDaemon sets the daemon's limit as an option has it.
func (l *limits) SetDaemon(k config.LimitKind, rate uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.daemon.set[k] = rate
	l.settle(l.daemon)
}

// SetPool sets a pool's limits as its metadata have them.
func (l *limits) SetPool(pool string, set config.ImageLimits) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t := l.pool(pool)
	t.set = set
	l.settle(t)
}

func (l *limits) pool(name string) *limit {
	t := l.pools[name]
	if t == nil {
		t = l.add(config.LimitKey{Pool: name})
		l.pools[name] = t
	}
	return t
}

// Hear takes what the daemon says, and tells what is in force.
func (l *limits) Hear(s limitsState) []report.Limit {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = s
	for _, wish := range s.Wishes {
		if wish.Pool != "" && wish.GlobalID == "" {
			l.pool(wish.Pool) // one of which this worker has nothing yet has its part all the same
		}
	}
	l.settle(l.daemon)
	for _, t := range l.pools {
		l.settle(t)
	}
	for _, t := range l.images {
		l.settle(t)
	}
	return l.report()
}

// Report tells what is in force.
func (l *limits) Report() []report.Limit {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.report()
}

func (l *limits) report() []report.Limit {
	var out []report.Limit
	tell := func(scope pace.Scope, t *limit) {
		for _, k := range config.LimitKinds {
			rate, by := l.inForce(t, k)
			if by == "" {
				continue
			}
			use := t.buckets[k].Use()
			out = append(out, report.Limit{
				Scope: string(scope), Pool: t.key.Pool, Namespace: t.key.Namespace, GlobalID: t.key.GlobalID,
				Kind: string(k), BytesPerSecond: rate, By: by, Part: l.part(t, k),
				Bytes: use.Bytes, Waited: use.Waited, Waiting: use.Waiting,
			})
		}
	}
	tell(pace.Daemon, l.daemon)
	for _, t := range l.pools {
		tell(pace.Pool, t)
	}
	for _, t := range l.images {
		tell(pace.Image, t)
	}
	slices.SortStableFunc(out, compareLimits)
	return out
}

// compareLimits orders limits: the widest first.
func compareLimits(a, b report.Limit) int {
	return cmp.Or(cmp.Compare(a.Pool, b.Pool), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.GlobalID, b.GlobalID), cmp.Compare(a.Kind, b.Kind))
}

// Join gives an image that is going to be read its limits.
func (l *limits) Join(key messages.ImageKey) replayer.Paced {
	l.mu.Lock()
	defer l.mu.Unlock()
	of := config.LimitKey{Pool: key.Pool, Namespace: key.Namespace, GlobalID: key.GlobalID}
	t := l.images[of]
	if t == nil {
		t = l.add(of)
		l.images[of] = t
	}
	t.users++
	chain := func(k config.LimitKind) *pace.Chain {
		return pace.NewChain(pace.Link{Scope: pace.Image, Bucket: t.buckets[k]},
			pace.Link{Scope: pace.Pool, Bucket: l.pool(key.Pool).buckets[k]}, pace.Link{Scope: pace.Daemon, Bucket: l.daemon.buckets[k]})
	}
	return replayer.Paced{
		Replay: chain(config.ReplayLimit), Sync: chain(config.SyncLimit),
		Own: func(set config.ImageLimits) {
			l.mu.Lock()
			defer l.mu.Unlock()
			if len(set) > 0 || len(t.set) > 0 {
				t.set = set
				l.settle(t)
			}
		},
		Leave: func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			if t.users--; t.users == 0 {
				delete(l.images, of)
			}
		},
	}
}

// callLimits does the call of the same name.
func (w *wiring) callLimits(state string) ([]byte, error) {
	var s limitsState
	if err := json.Unmarshal([]byte(state), &s); err != nil {
		return nil, fmt.Errorf("limits: %w: %w", syscall.EINVAL, err)
	}
	return json.Marshal(w.limits.Hear(s))
}

// followPool takes a pool's limits from its metadata, now and then, until ctx ends.
func (w *wiring) followPool(ctx context.Context, io rados.IOContext, log zerolog.Logger) {
	for {
		look, cancel := context.WithTimeout(ctx, lookTimeout)
		metadata, err := poolMetadata(look, io)
		cancel()
		switch {
		case ctx.Err() != nil:
			return
		case err != nil:
			log.Warn().Err(err).Msg("cannot read the pool's limits; those of before count on")
		default:
			w.limits.SetPool(io.Pool().Name, config.LimitsOf(metadata))
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(w.options.PoolReplayersRefreshInterval):
		}
	}
}

// poolMetadata are a pool's own settings that are ours.
func poolMetadata(ctx context.Context, io rados.IOContext) (map[string][]byte, error) {
	root, err := io.Cluster().OpenID(ctx, io.Pool().ID, "")
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// Few keys can begin so; a page of them is all.
	metadata, err := rados.Ask(ctx, root, rbd.InfoObject, rbd.MetadataList("rbd_warden_", 16))
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	return metadata, err
}
