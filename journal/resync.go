package journal

import (
	"context"
	"fmt"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

// ResyncChoice says in which way a re-sync was asked for.
type ResyncChoice string

// The ways of a re-sync.
const (
	// ResyncDefault leaves it to the daemon's configuration: "rbd mirror image resync"
	// knows nothing else.
	ResyncDefault ResyncChoice = ""
	// ResyncInPlace keeps the copy and changes what differs.
	ResyncInPlace ResyncChoice = "checksum"
	// ResyncFull removes the copy and makes a new one.
	ResyncFull ResyncChoice = "full"
)

// resyncAttribute is an attribute of the journal's header beside the flag, which
// upstream does not know and which goes with the journal.
const resyncAttribute = "rbd_warden_resync"

// RequestResync asks for a re-sync of the journal's image: the flag of the image client,
// as librbd's "rbd mirror image resync" sets it (Journal::request_resync in
// src/librbd/Journal.cc), and the choice, together.
func (j *Journal) RequestResync(ctx context.Context, choice ResyncChoice) error {
	return j.setResync(ctx, "request re-sync", true, choice)
}

// KeepResync sets the flag if it is not set, and leaves the choice as it is.
func (j *Journal) KeepResync(ctx context.Context) error {
	meta, err := j.ImageMeta(ctx)
	if err != nil || meta.ResyncRequested {
		return err
	}
	choice, err := j.ResyncChoice(ctx)
	if err != nil {
		return err
	}
	return j.setResync(ctx, "request re-sync", true, choice)
}

// FinishResync takes the flag and the choice back: the copy is what was asked for.
func (j *Journal) FinishResync(ctx context.Context) error {
	return j.setResync(ctx, "finish re-sync", false, ResyncDefault)
}

func (j *Journal) setResync(ctx context.Context, what string, requested bool, choice ResyncChoice) error {
	meta, err := j.ImageMeta(ctx)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	meta.ResyncRequested = requested
	op := new(rados.WriteOp).SetXattr(resyncAttribute, []byte(choice))
	op.Exec(wire.ClientUpdateData(wire.MasterClientID, wire.EncodeClientData(meta)))
	return j.tell(ctx, what, op)
}

// ResyncChoice tells in which way a re-sync was asked for. It says nothing about
// whether one was.
func (j *Journal) ResyncChoice(ctx context.Context) (ResyncChoice, error) {
	var op rados.ReadOp
	attributes := op.Xattrs()
	if err := j.header.Read(ctx, j.HeaderObject(), &op); err != nil {
		return ResyncDefault, fmt.Errorf("read the way of the re-sync: %w", err)
	}
	switch c := ResyncChoice(attributes.Pairs[resyncAttribute]); c {
	case ResyncInPlace, ResyncFull:
		return c, nil
	}
	return ResyncDefault, nil
}
