package replayer

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/journal"
)

// Our site is a client of the remote image's journal. The client's id is the local
// pool's mirror uuid; its data names the local image, and its commit position is the
// checkpoint. rbd-mirror keeps the same record, so either can go on from the other's. Who of
// ours comes too late to write it is refused: see journal.Registration.

// withRemoteJournal opens the remote journal for one action.
func (p *performer) withRemoteJournal(ctx context.Context, imageID string, fn func(j *journal.Journal) error) error {
	j, err := journal.Open(ctx, p.Remote.IO, imageID)
	if err != nil {
		return err
	}
	defer j.Close()
	return fn(j)
}

// readRemoteClients is GET_REMOTE_TAG_CLASS.
func (p *performer) readRemoteClients(ctx context.Context, imageID string) (core.Msg, error) {
	var m core.RemoteClientsRead
	err := p.withRemoteJournal(ctx, imageID, func(j *journal.Journal) error {
		r, err := readRole(ctx, j)
		if err != nil {
			return err
		}
		m.TagClass = r.tagClass
		client, err := j.Client(ctx, p.Local.MirrorUUID)
		if errors.Is(err, syscall.ENOENT) {
			p.ours.Know(wire.Client{ID: p.Local.MirrorUUID})
			return nil
		}
		if err != nil {
			return err
		}
		p.ours.Know(client)
		m.Registered, m.Connected = true, client.State == wire.Connected
		m.Meta, err = peerMeta(client, j)
		return err
	})
	return m, err
}

// peerMeta decodes our client's data.
func peerMeta(client wire.Client, j *journal.Journal) (wire.MirrorPeerClientMeta, error) {
	meta, err := wire.DecodeClientData(client.Data)
	if err != nil {
		return wire.MirrorPeerClientMeta{}, fmt.Errorf("client %q in %s: %w", client.ID, j.HeaderObject(), err)
	}
	peer, ok := meta.(wire.MirrorPeerClientMeta)
	if !ok {
		return wire.MirrorPeerClientMeta{}, fmt.Errorf("client %q in %s is a %T: %w", client.ID, j.HeaderObject(), meta, syscall.EBADMSG)
	}
	return peer, nil
}

// unregisterPeer is UNREGISTER_CLIENT.
func (p *performer) unregisterPeer(ctx context.Context, imageID string) (core.Msg, error) {
	err := p.withRemoteJournal(ctx, imageID, func(j *journal.Journal) error {
		err := p.ours.Unregister(ctx, j)
		if errors.Is(err, syscall.ENOENT) {
			return nil
		}
		return err
	})
	return core.ClientUnregistered{}, err
}

// registerPeer is REGISTER_CLIENT.
func (p *performer) registerPeer(ctx context.Context, e core.RegisterPeer) (core.Msg, error) {
	meta := e.Meta
	if e.NewImageID {
		meta.ImageID = image.NewID(p.Local.IO.Cluster())
	}
	err := p.withRemoteJournal(ctx, e.RemoteImageID, func(j *journal.Journal) error { return p.register(ctx, j, meta) })
	return core.ClientRegistered{Meta: meta}, err
}

// register registers us, and reads where that has put us.
func (p *performer) register(ctx context.Context, j *journal.Journal, meta wire.MirrorPeerClientMeta) error {
	if err := j.Register(ctx, p.Local.MirrorUUID, meta); err != nil {
		return err
	}
	client, err := j.Client(ctx, p.Local.MirrorUUID)
	if err == nil {
		p.ours.Know(client)
	}
	return err
}

// updatePeer is UPDATE_CLIENT_IMAGE and UPDATE_CLIENT_STATE.
func (p *performer) updatePeer(ctx context.Context, e core.UpdatePeer) (core.Msg, error) {
	meta := e.Meta
	if e.NewImageID {
		meta.ImageID = image.NewID(p.Local.IO.Cluster())
	}
	err := p.withRemoteJournal(ctx, e.RemoteImageID, func(j *journal.Journal) error {
		return p.ours.Update(ctx, j, meta)
	})
	return core.ClientUpdated{Meta: meta}, err
}

// readRemoteTags is GET_REMOTE_TAGS.
func (p *performer) readRemoteTags(ctx context.Context, e core.ReadRemoteTags) (core.Msg, error) {
	var tags []core.Tag
	err := p.withRemoteJournal(ctx, e.RemoteImageID, func(j *journal.Journal) error {
		var err error
		if tags, err = allTags(ctx, j, p.Local.MirrorUUID, e.Class); err != nil {
			return err
		}
		tags, err = olderTags(ctx, j, tags)
		return err
	})
	return core.RemoteTagsRead{Tags: tags}, err
}

// maxOlderTags bounds how far olderTags looks back.
const maxOlderTags = 64

// olderTags adds tags that are still stored although our client, by its position, does
// not need them any more: a demotion that happened before we registered may be
// among them, and without it the histories would seem to have parted.
func olderTags(ctx context.Context, j *journal.Journal, tags []core.Tag) ([]core.Tag, error) {
	for range maxOlderTags {
		if len(tags) == 0 || tags[0].TID == 0 {
			break
		}
		stored, err := j.Tag(ctx, tags[0].TID-1)
		if errors.Is(err, syscall.ENOENT) {
			break
		}
		if err != nil {
			return nil, err
		}
		data, err := wire.DecodeTagData(stored.Data)
		if err != nil {
			return nil, fmt.Errorf("tag %d in %s: %w", stored.TID, j.HeaderObject(), err)
		}
		tags = append([]core.Tag{{TID: stored.TID, Data: data}}, tags...)
	}
	return tags, nil
}

// allTags reads the tags of a class, oldest first.
func allTags(ctx context.Context, j *journal.Journal, clientID string, class wire.TagClass) ([]core.Tag, error) {
	stored, err := j.ImageTags(ctx, clientID, class)
	if err != nil {
		return nil, err
	}
	tags := make([]core.Tag, len(stored))
	for i, t := range stored {
		tags[i] = core.Tag{TID: t.TID, Data: t.TagData}
	}
	return tags, nil
}
