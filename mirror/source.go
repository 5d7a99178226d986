package mirror

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"syscall"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// A pool is mirrored from one peer, as with rbd-mirror, whose "rbd mirror pool peer add" refuses
// a second one to receive from. There are ways around that: a site that mirrors from here adds
// its record by itself, as one that is only sent to, and a direction can be changed. rbd-mirror
// then shares the pool's images out among both peers, whoever has them.
//
// Here the pool stays with the peer that it is mirrored from, which is kept in RADOS, so that
// neither a restart nor the order of the records' random uuids makes another choice, and all
// daemons of the site make the same:
//
//	rbd_warden_source   omap  peer   {"uuid": of the peer's record, "site": its name}

const (
	sourceObject = "rbd_warden_source"
	sourceKey    = "peer"
)

// Source names the peer that a pool is mirrored from.
type Source struct {
	UUID string `json:"uuid"` // of its record
	Site string `json:"site"`
}

// chooseSource picks the peer to mirror from, of those that are received from: the one that it
// was before; the site that it was before, if its record was made anew; else the first that can
// be connected to, in the order of their uuids.
func chooseSource(peers []cephmirror.Peer, before Source) (Source, bool) {
	candidates := slices.DeleteFunc(slices.Clone(peers), func(p cephmirror.Peer) bool { return !p.Direction.Receives() })
	if len(candidates) == 0 {
		return Source{}, false
	}
	rank := func(p cephmirror.Peer) int {
		switch {
		case p.UUID == before.UUID:
			return 0
		case p.SiteName == before.Site && p.ClientName != "":
			return 1
		case p.ClientName != "":
			return 2
		}
		return 3
	}
	best := slices.MinFunc(candidates, func(a, b cephmirror.Peer) int {
		if d := rank(a) - rank(b); d != 0 {
			return d
		}
		return strings.Compare(a.UUID, b.UUID)
	})
	return Source{UUID: best.UUID, Site: best.SiteName}, true
}

// findSource answers the uuid of the peer that a pool is mirrored from, "" for none, and keeps
// it. io is in the pool's default namespace.
func findSource(ctx context.Context, io rados.IOContext, peers []cephmirror.Peer) (string, error) {
	before, err := readSource(ctx, io)
	if err != nil {
		return "", err
	}
	source, ok := chooseSource(peers, before)
	if !ok || source == before {
		return source.UUID, nil // where there is none for now, the one before is remembered
	}
	value, err := json.Marshal(source)
	if err != nil {
		return "", err
	}
	var op rados.WriteOp
	op.SetOmap(map[string][]byte{sourceKey: value})
	return source.UUID, io.Write(ctx, sourceObject, &op)
}

func readSource(ctx context.Context, io rados.IOContext) (s Source, err error) {
	var op rados.ReadOp
	values := op.GetOmap(sourceKey)
	if err := io.Read(ctx, sourceObject, &op); err != nil && !errors.Is(err, syscall.ENOENT) {
		return s, err
	}
	if value := values.Pairs[sourceKey]; len(value) > 0 {
		_ = json.Unmarshal(value, &s) // what cannot be read chooses nothing, and is written anew
	}
	return s, nil
}
