package bench

import (
	"fmt"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// progress is what the primary's journal says of an image and its mirror.
type progress struct {
	primary, mirror journal.ObjectPosition // newest committed
	peer            journal.MirrorPeerClientMeta
	registered      bool // the mirror is
}

// caughtUp says that the mirror has committed all that the primary has.
func (p progress) caughtUp() bool {
	return p.registered && (p.mirror.Tag > p.primary.Tag || p.mirror.Tag == p.primary.Tag && p.mirror.Entry >= p.primary.Entry)
}

// progress reads the journal's clients.
func (v *Volume) progress() (p progress, err error) {
	values, err := v.place.here.GetOmapValues(journal.HeaderObject(v.id), "", "client_", 16)
	if err != nil {
		return p, err
	}
	for key, value := range values {
		var client journal.Client
		d := encoding.NewDecoder("journal client", value)
		client.Decode(d)
		if err := d.Err(); err != nil {
			return p, fmt.Errorf("%s: %w", key, err)
		}
		newest, _ := client.CommitPosition.Newest()
		if client.ID == journal.MasterClientID {
			p.primary = newest
			continue
		}
		meta, err := journal.DecodeClientData(client.Data)
		if err != nil {
			return p, fmt.Errorf("%s: %w", key, err)
		}
		if peer, ok := meta.(journal.MirrorPeerClientMeta); ok {
			p.mirror, p.peer, p.registered = newest, peer, true
		}
	}
	return p, nil
}

// lacking waits for nothing: it names the first image of which something is not so.
func lacking(volumes []*Volume, what string, so func(progress) bool) string {
	for _, v := range volumes {
		p, err := v.progress()
		if err != nil {
			return fmt.Sprintf("%s: %v", v.name, err)
		}
		if !so(p) {
			return fmt.Sprintf("%s: the mirror has not %s: %+v", v.name, what, p)
		}
	}
	return ""
}
