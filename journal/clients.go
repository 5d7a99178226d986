package journal

import (
	"context"
	"fmt"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Client asks the cluster for a client; ENOENT if it is not registered.
func (j *Journal) Client(ctx context.Context, id string) (wire.Client, error) {
	c, err := rados.Ask(ctx, j.header, j.HeaderObject(), wire.GetClient(id))
	if err != nil {
		return wire.Client{}, fmt.Errorf("get journal client %q: %w", id, err)
	}
	return c, nil
}

// Register registers a client; EEXIST if it is registered. It starts connected, at
// the lowest commit position of the other connected clients (see ClientRegister of
// package ceph/journal).
func (j *Journal) Register(ctx context.Context, id string, data wire.ClientMeta) error {
	var op rados.WriteOp
	op.Exec(wire.ClientRegister(id, wire.EncodeClientData(data)))
	return j.tell(ctx, fmt.Sprintf("register journal client %q", id), &op)
}

// UpdateClient replaces a client's data, whatever they are; ENOENT if it is not registered.
func (j *Journal) UpdateClient(ctx context.Context, id string, data wire.ClientMeta) error {
	var op rados.WriteOp
	op.Exec(wire.ClientUpdateData(id, wire.EncodeClientData(data)))
	return j.tell(ctx, fmt.Sprintf("update journal client %q", id), &op)
}

// SetClientState connects or disconnects a client; ENOENT if it is not registered.
func (j *Journal) SetClientState(ctx context.Context, id string, state wire.ClientState) error {
	var op rados.WriteOp
	op.Exec(wire.ClientUpdateState(id, state))
	return j.tell(ctx, fmt.Sprintf("set journal client %q %v", id, state), &op)
}

// Unregister removes a client; ENOENT if it is not registered. Its positions no
// longer hold back trimming.
func (j *Journal) Unregister(ctx context.Context, id string) error {
	var op rados.WriteOp
	op.Exec(wire.ClientUnregister(id))
	return j.tell(ctx, fmt.Sprintf("unregister journal client %q", id), &op)
}

// Commit stores how far a client has committed (see replay.Planner), whatever is stored; who
// may have a rival uses a Registration. Everything up to
// the position must be durable: entries behind it may be trimmed at once, and are
// never replayed again. The cluster does not refuse a position that moves back.
func (j *Journal) Commit(ctx context.Context, id string, p wire.ObjectSetPosition) error {
	var op rados.WriteOp
	op.Exec(wire.ClientCommit(id, p))
	return j.tell(ctx, fmt.Sprintf("commit journal client %q", id), &op)
}
