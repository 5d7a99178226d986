package mirror

import (
	"context"
	"errors"
	"strconv"
	"syscall"

	"github.com/rbdwarden/rbdwarden/rados"
)

// Keys in the monitors' config-key store (src/include/rbd_types.h). They are the
// cluster's, not a pool's, except for the peers'.
const (
	siteNameKey   = "rbd/mirror/site_name"
	peerKeyPrefix = "rbd/mirror/peer/" // then pool id / uuid of the peer's record
)

func peerKey(pool int64, peerUUID string) string {
	return peerKeyPrefix + strconv.FormatInt(pool, 10) + "/" + peerUUID
}

// SiteName is the name that the operator gave to the cluster ("rbd mirror pool enable
// --site-name"), or the cluster's fsid if there is none.
func SiteName(ctx context.Context, cluster rados.Cluster) (string, error) {
	name, err := configKey(ctx, cluster, siteNameKey)
	if err != nil {
		return "", err
	}
	if len(name) == 0 {
		return cluster.FSID(), nil
	}
	return string(name), nil
}

// configKey reads a key; a missing one is empty.
func configKey(ctx context.Context, cluster rados.Cluster, key string) ([]byte, error) {
	out, _, err := cluster.MonCommand(ctx, map[string]any{"prefix": "config-key get", "key": key}, nil)
	if errors.Is(err, syscall.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, &rados.Error{Op: "config-key get " + key, Pool: "mon", Err: err}
	}
	return out, nil
}
