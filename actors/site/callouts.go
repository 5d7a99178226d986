package site

import (
	"errors"
	"fmt"
	"strings"
	"syscall"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/mirror"
)

// The words of rbd-mirror for pools that it cannot mirror, in the service map
// (src/tools/rbd_mirror/{ClusterWatcher,PoolReplayer}.cc). Operators' checks look for them.
const (
	accessDenied = "access denied"               // a warning
	noMode       = "mirroring mode query failed" // a warning
	noNamespace  = "unable to initialize default namespace replayer"
)

// unreadable are the callouts of a pool whose mirroring cannot be read: rbd-mirror's words,
// then the cause.
func unreadable(err error) []mirror.Callout {
	words := noMode
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
		words = accessDenied
	}
	return []mirror.Callout{{Level: mirror.CalloutWarning, Text: words}, {Level: mirror.CalloutInfo, Text: err.Error()}}
}

// severalPeers says that a pool has more peers to receive from than the one that it is
// mirrored from. The words before the colon are those of "rbd mirror pool peer add".
func severalPeers(pool string, peer cephmirror.Peer, others []cephmirror.Peer) mirror.Callout {
	var names, remedies []string
	for _, p := range others {
		names = append(names, p.SiteName)
		remedies = append(remedies, fmt.Sprintf("rbd mirror pool peer remove %s %s", pool, p.UUID))
	}
	return mirror.Callout{Level: mirror.CalloutWarning, Text: fmt.Sprintf(
		"multiple RX peers are not currently supported: the pool is mirrored from %s only, not from %s; %s",
		peer.SiteName, strings.Join(names, ", "), strings.Join(remedies, "; "))}
}

// noPeer says why a mirrored pool is not mirrored here. It may be meant so, and is no
// callout of a kind that makes the pool's health worse.
func noPeer(peers []cephmirror.Peer) string {
	if len(peers) > 0 {
		return "no peer to mirror from: the pool is mirrored from here only"
	}
	return "no peer to mirror from: rbd mirror pool peer bootstrap import"
}
