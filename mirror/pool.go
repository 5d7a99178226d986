package mirror

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Pool is how a pool (or one of its namespaces) is mirrored.
type Pool struct {
	rados.Pool
	Namespace string
	Mode      cephmirror.Mode
	// MirrorUUID names the pool to its peers; "" while mirroring is disabled.
	MirrorUUID string
	// Peers is empty in namespaces: they have the pool's.
	Peers []cephmirror.Peer
	// RemoteNamespace is the namespace of the remote pool that this one mirrors.
	RemoteNamespace string
}

// Mirrors tells whether images of the pool or namespace itself may be mirrored.
func (p Pool) Mirrors() bool {
	return p.Mode == cephmirror.ModeImage || p.Mode == cephmirror.ModePool
}

// ReadPool reads how the pool and namespace of io is mirrored. One that never was
// gives ModeDisabled and no error.
func ReadPool(ctx context.Context, io rados.IOContext) (Pool, error) {
	p := Pool{Pool: io.Pool(), Namespace: io.Namespace(), RemoteNamespace: io.Namespace()}
	var err error
	if p.Mode, err = ReadMode(ctx, io); err != nil || p.Mode == cephmirror.ModeDisabled {
		return p, err
	}
	p.MirrorUUID, err = rados.Ask(ctx, io, cephmirror.Object, cephmirror.GetUUID())
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return p, err
	}
	p.Peers, err = rados.Ask(ctx, io, cephmirror.Object, cephmirror.PeerList())
	if err != nil && !errors.Is(err, syscall.ENOENT) {
		return p, err
	}
	remote, err := rados.Ask(ctx, io, cephmirror.Object, cephmirror.GetRemoteNamespace())
	switch {
	case err == nil:
		p.RemoteNamespace = remote
	case errors.Is(err, syscall.ENOENT), errors.Is(err, syscall.EOPNOTSUPP):
	default:
		return p, err
	}
	return p, nil
}

// ReadMode reads the mode of the pool and namespace of io alone.
func ReadMode(ctx context.Context, io rados.IOContext) (cephmirror.Mode, error) {
	mode, err := rados.Ask(ctx, io, cephmirror.Object, cephmirror.GetMode())
	if errors.Is(err, syscall.ENOENT) {
		return cephmirror.ModeDisabled, nil
	}
	return mode, err
}

// FoundPool is one answer of FindPools.
type FoundPool struct {
	Pool
	// Source is the uuid of the peer that the pool is mirrored from; "" if it is from none.
	Source string
	Err    error // what kept us from reading it; the Pool then has its name and id only
}

// FindPools looks for the cluster's mirrored pools. A pool that cannot be read is
// reported with its error, for an operator to see, and does not hide the others. The
// error is about the list of pools as a whole.
func FindPools(ctx context.Context, cluster rados.Cluster) ([]FoundPool, error) {
	// Nobody sends new maps to a client that has nothing open: one that was started
	// beside a cluster without mirrored pools would never see any (ClusterWatcher.cc
	// waits for the map, too).
	if err := cluster.WaitForLatestMap(ctx); err != nil {
		return nil, fmt.Errorf("list pools: %w", err)
	}
	pools, err := cluster.Pools(ctx)
	if err != nil {
		return nil, fmt.Errorf("list pools: %w", err)
	}
	var found []FoundPool
	for _, p := range pools {
		f := FoundPool{Pool: Pool{Pool: p}}
		io, err := cluster.OpenID(ctx, p.ID, "")
		if err == nil {
			if f.Pool, err = ReadPool(ctx, io); err == nil && len(f.Peers) > 0 {
				f.Source, err = findSource(ctx, io, f.Peers)
			}
			io.Close()
		}
		switch {
		case errors.Is(err, syscall.ENOENT): // removed in the meantime
		case err != nil:
			found = append(found, FoundPool{Pool: Pool{Pool: p}, Err: err})
		case f.Mode != cephmirror.ModeDisabled:
			found = append(found, f)
		}
	}
	return found, nil
}

// namespacePage is how many namespaces one call lists.
const namespacePage = 1024

// Namespaces lists the namespaces of a pool, without the default one; io is in the
// default namespace.
func Namespaces(ctx context.Context, io rados.IOContext) ([]string, error) {
	var all []string
	for after := ""; ; {
		names, err := rados.Ask(ctx, io, rbd.NamespaceObject, rbd.NamespaceList(after, namespacePage))
		if errors.Is(err, syscall.ENOENT) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, names...)
		if len(names) < namespacePage {
			return all, nil
		}
		after = names[len(names)-1]
	}
}

// MirroredNamespaces lists the namespaces of a pool whose images are mirrored, the
// default one ("") first. Those that cannot be read are left out, and are in the
// error; the list is good all the same.
func MirroredNamespaces(ctx context.Context, cluster rados.Cluster, pool int64) ([]string, error) {
	root, err := cluster.OpenID(ctx, pool, "")
	if err != nil {
		return nil, err
	}
	defer root.Close()
	names, err := Namespaces(ctx, root)
	failed := []error{err}
	var mirrored []string
	for _, name := range append([]string{""}, names...) {
		mode, err := namespaceMode(ctx, cluster, pool, name)
		if err != nil {
			failed = append(failed, fmt.Errorf("namespace %q: %w", name, err))
		} else if (Pool{Mode: mode}).Mirrors() {
			mirrored = append(mirrored, name)
		}
	}
	return mirrored, errors.Join(failed...)
}

func namespaceMode(ctx context.Context, cluster rados.Cluster, pool int64, name string) (cephmirror.Mode, error) {
	io, err := cluster.OpenID(ctx, pool, name)
	if err != nil {
		return 0, err
	}
	defer io.Close()
	return ReadMode(ctx, io)
}
