package journal

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Registration is a client of a journal as this process knows it, which speaks for it.
//
// Invariant: what it writes rests on the record as this process read or wrote it last. The
// comparison is a step of the operation that writes, so it is the OSD that refuses what comes
// too late: an operation of a process that was paused, or cut off from the journal's cluster,
// while another one took its place and committed. That process is fenced at its own cluster
// only; the journal's takes its operations, and cls_journal stores whatever position it is
// given. A position that moved back would have entries applied twice, a compare-and-write
// among them, and may point at what was trimmed.
type Registration struct {
	mu     sync.Mutex
	known  wire.Client
	likely *wire.Client // written, but the answer did not come: the record is this or known
}

// Know takes a record that was just read for what is stored.
func (r *Registration) Know(c wire.Client) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.known, r.likely = c, nil
}

// Known is the record as it was read or written last.
func (r *Registration) Known() wire.Client {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known
}

// Is tells whether a record says what is known.
func (r *Registration) Is(c wire.Client) bool { return sameClient(r.Known(), c) }

// Commit stores how far the client has committed, as Journal.Commit. ErrOvertaken if somebody
// else has written the record.
func (r *Registration) Commit(ctx context.Context, j *Journal, p wire.ObjectSetPosition) error {
	return r.change(ctx, j, commit, func(c *wire.Client) { c.CommitPosition = p }, wire.ClientCommit(r.id(), p))
}

// Update replaces the client's data. ErrOvertaken if somebody else has written the record.
func (r *Registration) Update(ctx context.Context, j *Journal, data wire.ClientMeta) error {
	raw := wire.EncodeClientData(data)
	return r.change(ctx, j, "update", func(c *wire.Client) { c.Data = raw }, wire.ClientUpdateData(r.id(), raw))
}

// Unregister removes the client. ErrOvertaken if somebody else has written the record.
func (r *Registration) Unregister(ctx context.Context, j *Journal) error {
	return r.change(ctx, j, "unregister", func(c *wire.Client) { *c = wire.Client{ID: c.ID} }, wire.ClientUnregister(r.id()))
}

// commit is what Registration.Commit does.
const commit = "commit"

func (r *Registration) id() string { return r.Known().ID }

func (r *Registration) change(ctx context.Context, j *Journal, what string, apply func(*wire.Client), call class.Call) error {
	news := what != commit
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.known
	now := was
	apply(&now)
	err := j.tellIf(ctx, was.ID, wire.Marshal(was), call, news)
	if errors.Is(err, syscall.ECANCELED) {
		err = r.changeStored(ctx, j, &now, apply, call, news)
	}
	switch {
	case err == nil:
		r.known, r.likely = now, nil
		return nil
	case !errors.Is(err, ErrOvertaken):
		r.likely = &now
	}
	return fmt.Errorf("%s journal client %q: %w", what, was.ID, err)
}

// changeStored is change on what is stored, if that says what we know, in whatever release's
// bytes, or what we wrote last without hearing of it.
func (r *Registration) changeStored(ctx context.Context, j *Journal, now *wire.Client, apply func(*wire.Client), call class.Call, news bool) error {
	raw, stored, err := j.clientRecord(ctx, r.known.ID)
	if err != nil {
		return err
	}
	if !sameClient(stored, r.known) && (r.likely == nil || !sameClient(stored, *r.likely)) {
		return ErrOvertaken
	}
	*now = stored
	apply(now)
	if err = j.tellIf(ctx, stored.ID, raw, call, news); errors.Is(err, syscall.ECANCELED) {
		return ErrOvertaken
	}
	return err
}

func sameClient(a, b wire.Client) bool {
	return a.ID == b.ID && a.State == b.State && bytes.Equal(a.Data, b.Data) && slices.Equal(a.CommitPosition, b.CommitPosition)
}

// tellIf performs a call if the client's record is those bytes; ECANCELED if it is not.
func (j *Journal) tellIf(ctx context.Context, id string, raw []byte, call class.Call, news bool) error {
	var op rados.WriteOp
	op.CmpOmap(wire.ClientKey(id), raw).Exec(call)
	if err := j.header.Write(ctx, j.HeaderObject(), &op); err != nil {
		return err
	}
	j.notifyUpdate(news)
	return nil
}

// clientRecord reads a client's record as it is stored; ENOENT if there is none.
func (j *Journal) clientRecord(ctx context.Context, id string) (raw []byte, c wire.Client, err error) {
	var op rados.ReadOp
	values := op.GetOmap(wire.ClientKey(id))
	if err := j.header.Read(ctx, j.HeaderObject(), &op); err != nil {
		return nil, c, err
	}
	raw, found := values.Pairs[wire.ClientKey(id)]
	if !found {
		return nil, c, &rados.Error{
			Op: "read journal client", Pool: j.header.Pool().Name, Namespace: j.header.Namespace(), Object: j.HeaderObject(), Err: syscall.ENOENT,
		}
	}
	d := encoding.NewDecoder("journal client", bytes.Clone(raw))
	c.Decode(d)
	if err := d.Err(); err != nil {
		return nil, c, j.headerError("read journal client", err)
	}
	return raw, c, nil
}
