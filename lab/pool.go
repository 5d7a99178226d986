package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
)

// CreatePool creates a replicated pool and initialises it for RBD.
func (c *Cluster) CreatePool(ctx context.Context, pool string) error {
	if _, err := c.CLI(ctx, "ceph", "osd", "pool", "create", pool, "8"); err != nil {
		return err
	}
	_, err := c.CLI(ctx, "rbd", "pool", "init", pool)
	return err
}

// DeletePool deletes a pool and all that is in it.
func (c *Cluster) DeletePool(ctx context.Context, pool string) error {
	_, err := c.CLI(ctx, "ceph", "osd", "pool", "delete", pool, pool, "--yes-i-really-really-mean-it")
	return err
}

// AddUser creates a cephx user, or sets the capabilities of one that exists, and leaves its keyring where ceph.conf
// finds it. The name is whole, as in "client.warden"; caps are pairs of service and capability.
func (c *Cluster) AddUser(ctx context.Context, user string, caps ...string) error {
	if len(caps)%2 != 0 {
		return fmt.Errorf("lab: user %s: capabilities %q are not pairs", user, caps)
	}
	args := append([]string{"auth", "get-or-create", user}, caps...)
	text, err := c.CLI(ctx, "ceph", args...)
	var failed *CommandError
	if errors.As(err, &failed) { // exists with other capabilities
		if _, err = c.CLI(ctx, "ceph", append([]string{"auth", "caps", user}, caps...)...); err != nil {
			return err
		}
		text, err = c.CLI(ctx, "ceph", "auth", "get-or-create", user)
	}
	if err != nil {
		return err
	}
	return os.WriteFile(c.Keyring(user), []byte(text), 0o600)
}

// DaemonUser is the user that a mirroring daemon of the lab runs as on its local cluster.
const DaemonUser = "client.rbd-mirror.lab"

// daemonCaps are the least privileges of a mirroring daemon (doc/rbd/rbd-mirroring.rst).
var daemonCaps = []string{"mon", "profile rbd-mirror", "osd", "profile rbd", "mgr", "profile rbd"}

// AddDaemonUser creates DaemonUser with the privileges that upstream's manual gives a mirroring daemon, and no more.
func (c *Cluster) AddDaemonUser(ctx context.Context) error {
	return c.AddUser(ctx, DaemonUser, daemonCaps...)
}
