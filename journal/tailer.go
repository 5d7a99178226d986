package journal

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rhythm"
)

// TailConfig says how a Tailer reads. Zero fields get defaults.
type TailConfig struct {
	// ClientID is the journal client whose commit position is the start.
	ClientID string
	// Budget bounds the bytes of the journal that are held: being read, or read
	// ahead and not yet handed out. One entry larger than it is still read.
	// Default 32 MiB.
	Budget int64
	// Credit bounds the same together with others; nil: nobody else. Hungry, if not nil,
	// is called by Next before it waits for credit while its caller may have entries
	// that are not Done: as long as they are not, it may wait.
	Credit Credit
	Hungry func()
	// MinPoll and MaxPoll bound how long Wait waits, at the pace at which entries come.
	// Defaults 20 ms and 5 s.
	MinPoll, MaxPoll time.Duration
	// Recheck is the longest time for which the header is believed while there is
	// nothing new, although no notification came. Default 10 s.
	Recheck time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

func (c TailConfig) withDefaults() TailConfig {
	if c.Budget <= 0 {
		c.Budget = 32 << 20
	}
	if c.MinPoll <= 0 {
		c.MinPoll = 20 * time.Millisecond
	}
	if c.MaxPoll <= 0 {
		c.MaxPoll = 5 * time.Second
	}
	if c.Recheck <= 0 {
		c.Recheck = 10 * time.Second
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	return c
}

// defaultMinRead is the least that is asked for in one read, however small the budget.
const defaultMinRead = 64 << 10

// Batch is a run of entries in journal order.
type Batch struct {
	Entries []Entry
	// Ended is the tag that ended behind Entries, nil if none did. The next batch
	// begins with a newer tag.
	Ended *EndOfTag
	// Dropped counts entries that were found behind a hole and left out.
	Dropped Dropped
	// Bridged are damaged bytes that were left out, for all in them was handed out or
	// committed before.
	Bridged []Bridged
	// CaughtUp says that there is no more now: the due place was found empty.
	CaughtUp bool
}

// Tailer reads a journal's entries in order, from a client's commit position on.
// Next, Wait, Shed and Close are called by one goroutine; the others by any.
type Tailer struct {
	j   *Journal
	cfg TailConfig

	merge   *merge
	readers []*objectReader
	polled  []bool // offsets whose read was started in this call of Next

	bridged []Bridged // since takeBridged

	meta    Metadata
	metaAt  time.Time
	refresh uint64        // counts readings of the header
	dirty   atomic.Bool   // the header has changed since meta
	wake    chan struct{} // ends Wait early
	pace    pace          // how long the next Wait waits

	ledger  *ledger
	held    atomic.Int64
	budget  atomic.Int64
	heard   atomic.Int64 // when the cluster answered last, UnixNano
	minRead int64        // least that one read asks for, in bytes

	ctx    context.Context
	cancel context.CancelFunc
	reads  sync.WaitGroup
	stop   func()
}

// NewTailer starts at the commit position that cfg.ClientID has now. It watches
// the header until Close. ErrNotRegistered, ErrDisconnected or ErrTrimmed if the
// client cannot go on from where it is.
func NewTailer(ctx context.Context, j *Journal, cfg TailConfig) (*Tailer, error) {
	t := &Tailer{j: j, cfg: cfg.withDefaults(), wake: make(chan struct{}, 1), minRead: defaultMinRead, ledger: newLedger(cfg.Credit)}
	t.budget.Store(t.cfg.Budget)
	t.pace = pace{least: t.cfg.MinPoll, most: t.cfg.MaxPoll}
	t.ctx, t.cancel = context.WithCancel(context.WithoutCancel(ctx))
	stop, err := j.Watch(ctx, t.changed)
	if err != nil {
		t.cancel()
		return nil, err
	}
	t.stop = stop
	// After the watch is there: no change can be missed.
	if err := t.readHeader(ctx); err != nil {
		t.Close()
		return nil, err
	}
	client, _ := t.meta.Client(t.cfg.ClientID)
	t.begin(client.CommitPosition)
	return t, nil
}

func (t *Tailer) begin(committed wire.ObjectSetPosition) {
	width := t.meta.SplayWidth
	t.merge = newMerge(width, committed)
	t.polled = make([]bool, width)
	for o := range width {
		t.readers = append(t.readers, &objectReader{offset: o, number: t.meta.MinimumSet.Object(width, o), more: true})
	}
	for _, p := range committed {
		t.readers[p.Object.SplayOffset(width)].number = p.Object
	}
}

// Close ends the watch and every read, and waits for them: a few seconds at most
// where the cluster does not answer. Credit is given back, so nobody may use the
// entries any more.
func (t *Tailer) Close() {
	t.cancel()
	t.stop()
	t.reads.Wait()
	t.ledger.close()
}

// Held is how many bytes of the journal are being read or were read and not yet
// handed out.
func (t *Tailer) Held() int64 { return t.held.Load() }

// Heard is when the cluster answered last. While nothing waits to be handed out, that
// is never longer ago than MaxPoll and the time of an answer, unless the cluster is
// silent.
func (t *Tailer) Heard() time.Time { return time.Unix(0, t.heard.Load()) }

// SetBudget changes the bound on Held; it takes effect with the next reads.
func (t *Tailer) SetBudget(bytes int64) {
	t.budget.Store(TailConfig{Budget: bytes}.withDefaults().Budget)
}

// Wake ends a Wait, and makes the next Next look at the header.
func (t *Tailer) Wake() { t.changed() }

func (t *Tailer) changed() {
	t.dirty.Store(true)
	select {
	case t.wake <- struct{}{}:
	default:
	}
}

// Event decodes the entry's payload; data in the event shares its memory. The
// error is a *CorruptError.
func (t *Tailer) Event(e Entry) (wire.EventEntry, error) { return t.j.event(e) }

func (j *Journal) event(e Entry) (wire.EventEntry, error) {
	v, err := wire.DecodeEvent(e.Payload)
	if err != nil {
		return wire.EventEntry{}, &CorruptError{Object: j.DataObject(e.Position.Object), Offset: e.Offset, Err: err}
	}
	return v, nil
}

// Metadata is the header as the tailer saw it last.
func (t *Tailer) Metadata() Metadata { return t.j.Metadata() }

// AtTail says that all that had been written when it was last looked for was handed out, at every offset. Another look at
// once would hardly find anything: who has had entries does well to Wait first, so that what is written meanwhile is read
// together.
func (t *Tailer) AtTail() bool {
	for o, r := range t.readers {
		behind := t.meta.ActiveSet > r.number.Set(t.meta.SplayWidth)
		if !r.atEnd || r.more || r.inflight != nil || r.err != nil || behind || !t.merge.queues[o].empty() {
			return false
		}
	}
	return true
}

// Wait waits until it is worth while to call Next again: until the header
// changed, or for a time that grows while nothing comes (see pace).
func (t *Tailer) Wait(ctx context.Context) error {
	timer := time.NewTimer(rhythm.Within(t.pace.wait()))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.wake:
	case <-timer.C:
		t.pace.nothing(t.cfg.Now())
	}
	return nil
}
