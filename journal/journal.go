package journal

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"syscall"
	"time"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// notifyTimeout is how long a notification on the header waits for its watchers,
// as in JournalMetadata::async_notify_update.
const notifyTimeout = 5 * time.Second

// Metadata is the journal header at one moment.
type Metadata struct {
	Order      uint8 // data objects are 1<<Order bytes, and a little more at times
	SplayWidth uint8 // objects in a set
	PoolID     int64 // pool of the data objects, -1 for the header's own

	MinimumSet wire.ObjectSet // the oldest set that is not trimmed
	ActiveSet  wire.ObjectSet // the set that is appended to
	NextTag    wire.TagTID    // id of the next tag; the newest tag is the one before
	Clients    []wire.Client  // ordered by id
}

// Client finds a registered client.
func (m Metadata) Client(id string) (wire.Client, bool) {
	for _, c := range m.Clients {
		if c.ID == id {
			return c, true
		}
	}
	return wire.Client{}, false
}

// Journal is the journal of one image. Its methods may be called by many
// goroutines.
type Journal struct {
	header  rados.IOContext
	data    rados.IOContext
	ownData bool // data was opened here and is closed here
	imageID string

	mu      sync.Mutex
	meta    Metadata
	untold  bool // the header was changed after the last notification began
	telling bool // a goroutine sends notifications
	news    bool // of what is untold, or being told, something is more than a commit of ours
	loud    bool // the notification under way tells such news

	watching sync.Mutex   // held while watch begins and ends
	watch    *headerWatch // nil while nobody watches

	notifies  sync.WaitGroup
	notifyCtx context.Context
	cancel    context.CancelFunc
}

// Open reads the header of the image's journal. io is the image's pool and
// namespace and must stay open until Close. ENOENT if the image has no journal.
func Open(ctx context.Context, io rados.IOContext, imageID string) (*Journal, error) {
	j := &Journal{header: io, data: io, imageID: imageID}
	j.notifyCtx, j.cancel = context.WithCancel(context.WithoutCancel(ctx))
	var op rados.ReadOp
	order := op.Exec(wire.GetOrder().Call)
	width := op.Exec(wire.GetSplayWidth().Call)
	pool := op.Exec(wire.GetPoolID().Call)
	if err := io.Read(ctx, j.HeaderObject(), &op); err != nil {
		return nil, fmt.Errorf("open journal: %w", err)
	}
	err := firstError(
		decodeInto(&j.meta.Order, wire.GetOrder().Decode, order),
		decodeInto(&j.meta.SplayWidth, wire.GetSplayWidth().Decode, width),
		decodeInto(&j.meta.PoolID, wire.GetPoolID().Decode, pool),
	)
	if err != nil {
		return nil, j.headerError("open journal", err)
	}
	if j.meta.SplayWidth == 0 || j.meta.Order < 12 || j.meta.Order > 26 {
		return nil, j.headerError("open journal",
			fmt.Errorf("order %d, splay width %d: %w", j.meta.Order, j.meta.SplayWidth, syscall.EBADMSG))
	}
	if id := j.meta.PoolID; id >= 0 && id != io.Pool().ID {
		// Seen on 16.2.15: objects in another pool are in its default namespace,
		// whatever the image's is (Journaler::init_complete sets none).
		j.data, err = io.Cluster().OpenID(ctx, id, "")
		if err != nil {
			return nil, fmt.Errorf("open the journal's data pool %d: %w", id, err)
		}
		j.ownData = true
	}
	if _, err := j.Refresh(ctx); err != nil {
		j.Close()
		return nil, err
	}
	return j, nil
}

// closeGrace is how long Close lets a notification finish: a watcher that does not
// answer, or a cluster that is gone, must not hold up who closes.
const closeGrace = time.Second

// Close waits a moment for notifications under way and releases what Open opened.
// Watches and tailers must be closed before.
func (j *Journal) Close() {
	grace := time.AfterFunc(closeGrace, j.cancel)
	j.notifies.Wait()
	grace.Stop()
	j.cancel()
	if j.ownData {
		j.data.Close()
	}
}

// ImageID is the id of the image that the journal belongs to.
func (j *Journal) ImageID() string { return j.imageID }

// HeaderObject names the header.
func (j *Journal) HeaderObject() string { return wire.HeaderObject(j.imageID) }

// DataObject names a data object.
func (j *Journal) DataObject(n wire.ObjectNumber) string {
	return wire.DataObject(j.header.Pool().ID, j.imageID, n)
}

// Metadata is the header as Open or the newest Refresh saw it.
func (j *Journal) Metadata() Metadata {
	j.mu.Lock()
	defer j.mu.Unlock()
	m := j.meta
	m.Clients = slices.Clone(m.Clients)
	return m
}

// Refresh reads the header anew.
func (j *Journal) Refresh(ctx context.Context) (Metadata, error) {
	var op rados.ReadOp
	list := wire.ClientList("", wire.MaxReturn)
	minimum := op.Exec(wire.GetMinimumSet().Call)
	active := op.Exec(wire.GetActiveSet().Call)
	next := op.Exec(wire.GetNextTagTID().Call)
	clients := op.Exec(list.Call)
	if err := j.header.Read(ctx, j.HeaderObject(), &op); err != nil {
		return Metadata{}, fmt.Errorf("refresh journal: %w", err)
	}
	var m Metadata
	err := firstError(
		decodeInto(&m.MinimumSet, wire.GetMinimumSet().Decode, minimum),
		decodeInto(&m.ActiveSet, wire.GetActiveSet().Decode, active),
		decodeInto(&m.NextTag, wire.GetNextTagTID().Decode, next),
		decodeInto(&m.Clients, list.Decode, clients),
	)
	if err != nil {
		return Metadata{}, j.headerError("refresh journal", err)
	}
	for page := m.Clients; len(page) == wire.MaxReturn; {
		page, err = rados.Ask(ctx, j.header, j.HeaderObject(), wire.ClientList(page[len(page)-1].ID, wire.MaxReturn))
		if err != nil {
			return Metadata{}, fmt.Errorf("refresh journal: %w", err)
		}
		m.Clients = append(m.Clients, page...)
	}

	j.mu.Lock()
	defer j.mu.Unlock()
	m.Order, m.SplayWidth, m.PoolID = j.meta.Order, j.meta.SplayWidth, j.meta.PoolID
	// Two refreshes may overtake each other: the sets and tags only ever grow.
	m.MinimumSet = max(m.MinimumSet, j.meta.MinimumSet)
	m.ActiveSet = max(m.ActiveSet, j.meta.ActiveSet)
	m.NextTag = max(m.NextTag, j.meta.NextTag)
	j.meta = m
	m.Clients = slices.Clone(m.Clients)
	return m, nil
}

// tell performs calls on the header and then tells its watchers, as upstream does
// after every change of clients, tags and sets.
func (j *Journal) tell(ctx context.Context, what string, op *rados.WriteOp) error {
	if err := j.header.Write(ctx, j.HeaderObject(), op); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	j.notifyUpdate(true)
	return nil
}

// notifyUpdate tells the header's watchers in the background: a watcher that is
// gone would hold its caller up for the whole timeout. Changes made while one
// notification is under way are told by one more. A notification that fails is not
// reported, since watchers also poll. What is no news to who writes it, a commit, is not told
// to this Journal's own watchers.
func (j *Journal) notifyUpdate(news bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.untold = true
	j.news = j.news || news
	if j.telling {
		return
	}
	j.telling = true
	j.notifies.Go(func() {
		for j.takeUntold() {
			ctx, cancel := context.WithTimeout(j.notifyCtx, 2*notifyTimeout)
			_, _ = j.header.Notify(ctx, j.HeaderObject(), nil, notifyTimeout)
			cancel()
		}
	})
}

func (j *Journal) takeUntold() bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	untold := j.untold
	j.untold, j.telling = false, untold
	j.loud, j.news = j.news, false
	return untold
}

// ownEcho tells whether a notification is one of this Journal's that has no news for it.
func (j *Journal) ownEcho(notifier uint64) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.telling && !j.loud && notifier == j.header.Cluster().InstanceID()
}

func (j *Journal) headerError(op string, err error) error {
	return &rados.Error{Op: op, Pool: j.header.Pool().Name, Namespace: j.header.Namespace(), Object: j.HeaderObject(), Err: err}
}

func decodeInto[R any](to *R, decode func([]byte) (R, error), step *rados.ReadStep) error {
	r, err := decode(step.Data)
	if err == nil {
		*to = r
	}
	return err
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
