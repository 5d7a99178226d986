package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"github.com/rs/zerolog"

	actorpool "github.com/rbdwarden/rbdwarden/actors/pool"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/journal"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
	"github.com/rbdwarden/rbdwarden/report"
)

// copySite is one site's copy of a mirrored image, as a command sees it.
type copySite struct {
	name       string // the site's, or the cluster's
	cluster    *librados.Cluster
	io         rados.IOContext
	mirrorUUID string // of the pool
	id         string // of the image
}

// bothSites are a mirrored image's copies here and at a peer.
type bothSites struct {
	here, there copySite
	globalID    string
}

// Close ends the connections.
func (b *bothSites) Close() {
	for _, s := range [2]copySite{b.there, b.here} {
		if s.io != nil {
			s.io.Close()
		}
		if s.cluster != nil {
			s.cluster.Close()
		}
	}
}

// openHere connects to the local cluster and finds the image in it.
func openHere(ctx context.Context, flags cephFlags, spec imageSpec) (_ copySite, _ config.Options, err error) {
	cfg, err := flags.resolve(strconv.Itoa(os.Getpid()))
	if err != nil {
		return copySite{}, config.Options{}, err
	}
	c, options, err := connect(ctx, cfg, "", commandLog())
	if err != nil {
		return copySite{}, config.Options{}, err
	}
	site := copySite{name: cfg.Cluster, cluster: c}
	defer func() {
		if err != nil {
			(&bothSites{here: site}).Close()
		}
	}()
	if site.io, err = c.Open(ctx, spec.pool, spec.namespace); errors.Is(err, syscall.ENOENT) {
		return copySite{}, options, fmt.Errorf("there is no pool %s", spec.pool)
	} else if err != nil {
		return copySite{}, options, err
	}
	if name, err := mirrorpool.SiteName(ctx, c); err == nil && name != "" {
		site.name = name
	}
	if site.id, err = image.ID(ctx, site.io, spec.image); errors.Is(err, syscall.ENOENT) {
		return copySite{}, options, fmt.Errorf("there is no image %s in pool %s", spec.image, spec.pool)
	}
	return site, options, err
}

// commandLog is where a command's warnings go.
func commandLog() zerolog.Logger {
	return zerolog.New(zerolog.ConsoleWriter{Out: os.Stderr, NoColor: true}).Level(zerolog.WarnLevel)
}

// openBoth finds the image's copies here and at the peer that has it; peer, if not
// empty, is the uuid or the site name of the one to ask.
func openBoth(ctx context.Context, flags cephFlags, spec imageSpec, peer string) (_ *bothSites, err error) {
	b := &bothSites{}
	var options config.Options
	if b.here, options, err = openHere(ctx, flags, spec); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			b.Close()
		}
	}()
	record, err := mirrorpool.GetImage(ctx, b.here.io, b.here.id)
	switch {
	case errors.Is(err, syscall.ENOENT):
		return nil, fmt.Errorf("image %s is not mirrored", spec.image)
	case err != nil:
		return nil, err
	case record.Mode == cephmirror.ImageSnapshot:
		return nil, fmt.Errorf("image %s is mirrored by snapshots, not by its journal", spec.image)
	}
	b.globalID = record.GlobalID
	base, err := b.here.cluster.Open(ctx, spec.pool, "")
	if err != nil {
		return nil, err
	}
	defer base.Close()
	pool, err := mirrorpool.ReadPool(ctx, base)
	if err != nil {
		return nil, err
	}
	b.here.mirrorUUID = pool.MirrorUUID
	here, err := mirrorpool.ReadPool(ctx, b.here.io)
	if err != nil {
		return nil, err
	}
	failed := []error{fmt.Errorf("no peer of pool %s has image %s", spec.pool, spec.image)}
	for _, p := range pool.Peers {
		if peer != "" && p.UUID != peer && p.SiteName != peer || peer == "" && !p.Direction.Receives() {
			continue
		}
		there, err := openThere(ctx, b, pool, remoteNamespace(here, spec.namespace), p, options)
		if err == nil {
			b.there = there
			return b, nil
		}
		failed = append(failed, fmt.Errorf("peer %s: %w", p.SiteName, err))
	}
	return nil, errors.Join(failed...)
}

// openThere connects to a peer and finds the image there.
func openThere(ctx context.Context, b *bothSites, pool mirrorpool.Pool, namespace string, peer cephmirror.Peer, options config.Options) (_ copySite, err error) {
	s := copySite{name: peer.SiteName}
	defer func() {
		if err != nil {
			(&bothSites{there: s}).Close()
		}
	}()
	if s.cluster, err = dialPeer(ctx, b.here.cluster, pool.ID, peer, "", options); err != nil {
		return copySite{}, err
	}
	base, err := s.cluster.Open(ctx, pool.Name, "")
	if err != nil {
		return copySite{}, err
	}
	defer base.Close()
	there, err := mirrorpool.ReadPool(ctx, base)
	if err != nil {
		return copySite{}, err
	}
	s.mirrorUUID = there.MirrorUUID
	if s.io, err = s.cluster.Open(ctx, pool.Name, namespace); err != nil {
		return copySite{}, err
	}
	s.id, _, err = mirrorpool.FindImage(ctx, s.io, b.globalID)
	if errors.Is(err, syscall.ENOENT) {
		err = errors.New("it has no such image")
	}
	return s, err
}

// dialPeer connects to a peer's cluster, of which the local one must not be it. socket is
// the admin socket that the connection gets, "" for none.
func dialPeer(ctx context.Context, local *librados.Cluster, pool int64, peer cephmirror.Peer, socket string, options config.Options) (*librados.Cluster, error) {
	facts, err := mirrorpool.ResolvePeer(ctx, local, pool, peer)
	if err != nil {
		return nil, &actorpool.ConnectError{Words: actorpool.NoPeerConfig, Level: report.LevelWarning, Err: err}
	}
	cfg := librados.Config{
		Cluster: facts.SiteName, ConfFile: facts.ConfFile, ClientName: facts.ClientName,
		MonHost: facts.MonHost, Key: facts.Key.Reveal(), Peer: true, Timeouts: timeouts(options),
	}
	if socket != "" {
		cfg.Overrides = map[string]string{"admin_socket": socket}
	}
	c, err := librados.Connect(ctx, cfg)
	if err != nil {
		return nil, err
	}
	if c.FSID() == local.FSID() {
		c.Close()
		return nil, fmt.Errorf("the peer %s is the local cluster itself", facts.SiteName)
	}
	return c, nil
}

// journalRole is what a copy's journal says of it.
type journalRole struct {
	primary bool
	resync  bool // a re-sync was asked for, and is not complete
}

// role reads what a copy's journal says of it.
func (s copySite) role(ctx context.Context) (journalRole, error) {
	j, err := journal.Open(ctx, s.io, s.id)
	if err != nil {
		return journalRole{}, err
	}
	defer j.Close()
	return roleIn(ctx, j)
}

func roleIn(ctx context.Context, j *journal.Journal) (journalRole, error) {
	meta, err := j.ImageMeta(ctx)
	if err != nil {
		return journalRole{}, err
	}
	tags, err := j.ImageTags(ctx, wire.MasterClientID, meta.TagClass)
	if err != nil {
		return journalRole{}, err
	}
	r := journalRole{resync: meta.ResyncRequested}
	r.primary = len(tags) > 0 && tags[len(tags)-1].MirrorUUID == wire.LocalMirrorUUID
	return r, nil
}

// syncing tells whether the copy of a site is not complete yet, by what the journal of
// the other, the primary, says of it.
func syncing(ctx context.Context, primary, replica copySite) (bool, error) {
	j, err := journal.Open(ctx, primary.io, primary.id)
	if err != nil {
		return false, err
	}
	defer j.Close()
	client, err := j.Client(ctx, replica.mirrorUUID)
	if errors.Is(err, syscall.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	meta, err := wire.DecodeClientData(client.Data)
	if err != nil {
		return false, fmt.Errorf("client %q in %s: %w", client.ID, j.HeaderObject(), err)
	}
	peer, ok := meta.(wire.MirrorPeerClientMeta)
	return ok && peer.State == wire.PeerSyncing, nil
}

// header reads the header of a site's copy.
func (s copySite) header(ctx context.Context) (*image.Header, error) {
	h, err := image.ReadHeader(ctx, s.io, s.id)
	if err != nil {
		return nil, fmt.Errorf("site %s: %w", s.name, err)
	}
	return h, nil
}

// userSnapshot finds a user snapshot; nil if there is none.
func userSnapshot(h *image.Header, name string) *image.Snapshot {
	return h.Snapshot(rbd.UserSnapshot{}, name)
}
