package replayer

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/journal"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/replay"
)

// initJournaler is INIT_REMOTE_JOURNALER.
func (p *performer) initJournaler(ctx context.Context, imageID string) (core.Msg, error) {
	j, err := journal.Open(ctx, p.Remote.IO, imageID)
	if err != nil {
		return nil, err
	}
	p.journal, p.remoteID, p.copyID = j, imageID, p.local.image.ID()
	p.open, p.shut = context.WithCancel(context.Background())
	if p.committed, err = j.Watch(ctx, p.remoteChanged); err != nil {
		return nil, err
	}
	meta, err := j.Refresh(ctx)
	if err != nil {
		return nil, err
	}
	client, ok := meta.Client(p.Local.MirrorUUID)
	if !ok {
		return nil, fmt.Errorf("client %q in %s: %w", p.Local.MirrorUUID, j.HeaderObject(), syscall.ENOENT)
	}
	peer, err := peerMeta(client, j)
	if err != nil {
		return nil, err
	}
	if peer.ImageID != p.copyID {
		return nil, fmt.Errorf("client %q in %s belongs to local image %q, not to %q: %w",
			client.ID, j.HeaderObject(), peer.ImageID, p.copyID, syscall.ESTALE)
	}
	// Its position may be newer: that of a predecessor which still had the lock when it wrote it.
	if known := p.ours.Known(); !bytes.Equal(known.Data, client.Data) {
		return nil, fmt.Errorf("client %q in %s: %w", client.ID, j.HeaderObject(), journal.ErrOvertaken)
	}
	p.ours.Know(client)
	p.snaps = newSnapMap(peer)
	primary, _ := meta.Client(wire.MasterClientID)
	return core.JournalerReady{
		Disconnected: client.State != wire.Connected, SplayWidth: meta.SplayWidth,
		Committed: client.CommitPosition, Primary: primary.CommitPosition, Covered: peer.Covered,
	}, nil
}

// Look looks at the remote image's records because something is said to have changed: notifications get lost, and the
// end of mirroring is notified elsewhere than at the journal. Only while the image replays.
func (p *performer) Look() { p.remoteChanged() }

// remoteChanged looks at the remote journal's clients after somebody changed them.
// It is called from the watch, so the look happens elsewhere.
func (p *performer) remoteChanged() {
	j, open := p.journal, p.open
	if j == nil {
		return
	}
	p.looks.Go(func() {
		ctx, cancel := context.WithTimeout(open, p.Timeout)
		defer cancel()
		meta, err := j.Refresh(ctx)
		if errors.Is(err, syscall.ENOENT) {
			p.notify(core.RemoteJournalChanged{Unmirrored: true})
		}
		if err != nil {
			return // the reader meets the same trouble, and reports it
		}
		primary, _ := meta.Client(wire.MasterClientID)
		own, ok := meta.Client(p.Local.MirrorUUID)
		m := core.RemoteJournalChanged{
			Disconnected: ok && own.State != wire.Connected, Primary: primary.CommitPosition,
			Unmirrored: !ok || p.ofAnotherCopy(own) || p.unmirrored(ctx),
		}
		if data, err := wire.DecodeClientData(primary.Data); err == nil {
			if image, ok := data.(wire.ImageClientMeta); ok {
				m.Tags, _ = allTags(ctx, j, p.Local.MirrorUUID, image.TagClass)
			}
		}
		p.notify(m)
	})
}

// ofAnotherCopy says whether our site's client belongs to another local image than the one that we replay to. Data that
// cannot be read say nothing of that; a start reports them.
func (p *performer) ofAnotherCopy(own wire.Client) bool {
	meta, err := peerMeta(own, p.journal)
	return err == nil && meta.ImageID != p.copyID
}

// unmirrored says whether the remote site says that the image's mirroring has ended or is ending.
func (p *performer) unmirrored(ctx context.Context) bool {
	_, record, err := mirrorpool.FindImage(ctx, p.Remote.IO, p.GlobalID)
	return errors.Is(err, syscall.ENOENT) || err == nil && record.State == mirror.ImageDisabling
}

// startTailing is START_REPLAY.
func (p *performer) startTailing(ctx context.Context) (core.Msg, error) {
	r, err := p.local.look(ctx)
	if err != nil {
		return nil, err
	}
	if r.promotion() != core.Primary {
		if err := p.renameBeforeReplay(ctx); err != nil {
			return nil, err
		}
	}
	if p.tailer, err = journal.NewTailer(ctx, p.journal, p.tailing(p.Local.MirrorUUID)); err != nil {
		return nil, err
	}
	p.ear.Store(p.tailer)
	if p.stray {
		p.sweep()
	}
	return core.ReplayStarted{Promotion: r.promotion(), ResyncRequested: r.resync}, nil
}

// readEntries waits for entries and decodes them. Damaged ones end the image's replay
// with an error that names object and offset; what comes before them is delivered.
func (p *performer) readEntries(ctx context.Context, maxBytes int) (core.Msg, error) {
	if p.held.waits() {
		return p.due(ctx)
	}
	if err := p.readErr; err != nil {
		p.readErr = nil
		return nil, err
	}
	if p.tailer.AtTail() {
		if err := p.tailer.Wait(ctx); err != nil {
			return nil, err
		}
	}
	for {
		b, err := p.next(ctx, int64(maxBytes))
		if err != nil {
			return nil, err
		}
		if b.Dropped.Count > 0 {
			p.Log.Warn().Uint64("entries", b.Dropped.Count).
				Stringer("first", b.Dropped.First).Stringer("last", b.Dropped.Last).
				Msg("left out journal entries behind a hole at the end of a tag: the primary crashed before it acknowledged them")
		}
		for _, d := range b.Bridged {
			p.Log.Warn().Str("object", d.Object).Uint64("from", d.From).Uint64("to", d.To).Stringer("before", d.Before).Err(d.Err).
				Msg("left out damaged bytes of the journal: every entry in them is behind our position")
		}
		if len(b.Entries) > 0 || b.Ended != nil {
			entries, err := p.decode(b.Entries)
			if err != nil && len(entries) == 0 {
				return nil, err
			}
			p.readErr = err // told after what comes before it was delivered
			m := core.EntriesRead{Entries: entries, At: time.Now()}
			if b.Ended != nil && err == nil {
				m.TagEnded, m.Ended = true, b.Ended.Tag
			}
			p.held.batch = m
			return p.due(ctx)
		}
		if !b.CaughtUp {
			continue
		}
		if err := p.tailer.Wait(ctx); err != nil {
			return nil, err
		}
	}
}

func (p *performer) decode(entries []journal.Entry) ([]core.Entry, error) {
	out := make([]core.Entry, 0, len(entries))
	for _, e := range entries {
		ev, err := p.tailer.Event(e)
		if err != nil {
			return out, err // the entries behind it are done with when the image stops for it
		}
		if unknown, ok := ev.Event.(wire.Unknown); ok {
			// Skipping it could lose data (invariant 12). Say where it is.
			return out, &journal.CorruptError{
				Object: p.journal.DataObject(e.Position.Object), Offset: e.Offset,
				Err: &replay.UnknownEventError{Tag: e.Position.Tag, Entry: e.Position.Entry, Type: uint32(unknown.EventType)},
			}
		}
		p.handed.add(e)
		out = append(out, core.Entry{
			Entry:     replay.Entry{Position: e.Position, Event: ev.Event, Bytes: len(e.Payload)},
			Timestamp: ev.Timestamp,
		})
	}
	return out, nil
}

// findOutcome reads ahead with a reader of its own until it has the operation's
// result, or a newer tag. It keeps nothing of what it reads.
func (p *performer) findOutcome(ctx context.Context, need replay.NeedOutcome) (core.Msg, error) {
	t, err := journal.NewTailer(ctx, p.journal, p.lookingAhead(p.Local.MirrorUUID))
	if err != nil {
		return nil, err
	}
	defer t.Close()
	for {
		b, err := t.Next(ctx, lookAheadBudget)
		if err != nil {
			return nil, err
		}
		for _, e := range b.Entries {
			if e.Position.Tag > need.Tag {
				return core.OutcomeFound{Tag: need.Tag, Op: need.Op}, nil
			}
			ev, err := t.Event(e)
			if err != nil {
				return nil, err
			}
			if f, ok := ev.Event.(wire.OpFinish); ok && e.Position.Tag == need.Tag && f.Op == need.Op {
				return core.OutcomeFound{Tag: need.Tag, Op: need.Op, Found: true, Result: f.Result}, nil
			}
		}
		done(b.Entries)
		if b.Ended != nil && b.Ended.Tag >= need.Tag {
			return core.OutcomeFound{Tag: need.Tag, Op: need.Op}, nil
		}
		if b.CaughtUp {
			if err := t.Wait(ctx); err != nil {
				return nil, err
			}
		}
	}
}

// lookAheadBudget bounds the memory of one findOutcome, in bytes.
const lookAheadBudget = 4 << 20

// readRemoteTag is GET_REMOTE_TAG.
func (p *performer) readRemoteTag(ctx context.Context, tid wire.TagTID) (core.Msg, error) {
	tag, err := p.journal.Tag(ctx, tid)
	if err != nil {
		return nil, err
	}
	data, err := wire.DecodeTagData(tag.Data)
	if err != nil {
		return nil, fmt.Errorf("tag %d in %s: %w", tid, p.journal.HeaderObject(), err)
	}
	return core.RemoteTagRead{Tag: core.Tag{TID: tid, Data: data}}, nil
}

// lastCommit bounds the commit on the way out, for which the image stays locked.
const lastCommit = 2 * time.Second

// commit stores the commit position. A position is only stored by the owner of the
// local image: one that lost its lock must not overwrite its successor's. What it sent
// before it lost the lock, and comes late, the journal's own cluster refuses.
func (p *performer) commit(ctx context.Context, e core.Commit) (core.Msg, error) {
	if e.Last {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, lastCommit)
		defer cancel()
	}
	if !p.local.lock.Valid() {
		return nil, &rados.Error{Op: "commit", Object: p.journal.HeaderObject(), Err: errors.Join(errNotOwner, p.local.lock.Cause())}
	}
	if err := p.ours.Commit(ctx, p.journal, e.Position); err != nil {
		return nil, err
	}
	p.trim(e.Last)
	return core.Committed{Position: e.Position}, nil
}

// trimDelay is the time from a commit until what became free is trimmed; commits
// meanwhile are covered by the same look.
const trimDelay = 5 * time.Second

// trim removes, in the background, the remote journal's object sets that every client
// has committed. The primary does so, too, but only while somebody has the image open
// there; else its journal would stay as large as it is.
func (p *performer) trim(last bool) {
	if last || !p.trimming.CompareAndSwap(false, true) {
		return
	}
	j, ctx := p.journal, p.open
	p.looks.Go(func() {
		select {
		case <-ctx.Done():
			p.trimming.Store(false)
			return
		case <-time.After(trimDelay):
		}
		p.trimming.Store(false) // what is committed from here on needs another look
		ctx, cancel := context.WithTimeout(ctx, p.Timeout)
		defer cancel()
		if _, err := j.Trim(ctx); err != nil && ctx.Err() == nil {
			p.Log.Warn().Err(err).Msg("cannot trim the remote journal; its space is not given back yet")
		}
	})
}
