package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"
)

// errPortTaken says that somebody took the monitor's port between our look at it and the monitor's bind.
var errPortTaken = errors.New("port taken")

// portAttempts is how often Start tries another pair of ports.
const portAttempts = 8

// Start starts a cluster and answers when its OSD takes reads and writes, after about four seconds. Upon an error
// nothing is left behind; the error then carries what the failing program said.
func Start(ctx context.Context, o Options) (*Cluster, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	c := &Cluster{desc: description{
		Name: o.Name, Dir: o.Dir, Store: o.Store, FSID: newUUID(), Started: time.Now().UTC(),
		Parent: o.parent,
	}}
	if err := c.start(ctx, o); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: start %s: %w", o.Dir, err), c.Stop())
	}
	return c, nil
}

// start does the work of Start and leaves the cleaning up to it.
func (c *Cluster) start(ctx context.Context, o Options) error {
	if len(o.Guard) > 0 {
		var err error
		if c.guard, err = startGuard(o.Guard, o.Dir); err != nil {
			return err
		}
	}
	keys, osdUUID := newDaemonKeys(time.Now()), newUUID()
	for attempt := 1; ; attempt++ {
		err := c.startMonitor(ctx, o, keys)
		if err == nil {
			break
		}
		if !errors.Is(err, errPortTaken) || attempt == portAttempts {
			return err
		}
	}
	if err := c.startOthers(ctx, osdUUID); err != nil {
		return err
	}
	return c.waitActive(ctx)
}

// startMonitor makes the monitor's store and starts the monitor on fresh ports.
func (c *Cluster) startMonitor(ctx context.Context, o Options, keys daemonKeys) error {
	claim, err := claimPorts()
	if err != nil {
		return err
	}
	defer claim.release()
	c.desc.MonPort = claim.first
	if err := c.layOut(o, keys); err != nil {
		return err
	}
	monmap := filepath.Join(c.desc.Dir, "monmap")
	for _, argv := range [][]string{
		{"monmaptool", "--create", "--clobber", "--addv", "a", c.MonHost(), "--fsid", c.desc.FSID, monmap},
		{"ceph-mon", "-c", c.Conf(), "--mkfs", "-i", "a", "--monmap", monmap, "--keyring", c.daemonKeyring()},
	} {
		if _, err := c.run(ctx, argv...); err != nil {
			return err
		}
	}
	_, err = c.run(ctx, "ceph-mon", "-c", c.Conf(), "-i", "a")
	if err != nil && strings.Contains(c.logText(monName)+err.Error(), "ddress already in use") {
		return fmt.Errorf("%w: %w", errPortTaken, err)
	}
	return err
}

// layOut makes the directory's contents, anew where an earlier attempt left some.
func (c *Cluster) layOut(o Options, keys daemonKeys) error {
	for _, name := range []string{"mon", "mgr", "osd", "run", "log"} {
		path := filepath.Join(c.desc.Dir, name)
		if err := os.RemoveAll(path); err != nil {
			return err
		}
		if err := os.Mkdir(path, 0o755); err != nil {
			return err
		}
	}
	if err := c.save(); err != nil {
		return err
	}
	if err := os.WriteFile(c.Conf(), []byte(confText(c.desc, o.Conf)), 0o644); err != nil {
		return err
	}
	// By the cluster's name too: programs that know --cluster only look for NAME.conf in their working directory.
	byName := filepath.Join(c.desc.Dir, c.desc.Name+".conf")
	os.Remove(byName)
	if err := os.Symlink(confName, byName); err != nil {
		return err
	}
	if err := os.WriteFile(c.daemonKeyring(), []byte(keys.daemons()), 0o600); err != nil {
		return err
	}
	return os.WriteFile(c.Keyring("client.admin"), []byte(keys.adminOnly()), 0o600)
}

// startOthers starts the mgr and the OSD beside the running monitor.
func (c *Cluster) startOthers(ctx context.Context, osdUUID string) error {
	conf := c.Conf()
	for _, argv := range [][]string{
		{"ceph-mgr", "-c", conf, "-i", "x"},
		{"ceph-osd", "-c", conf, "-i", "0", "--mkfs", "--no-mon-config", "--osd-uuid", osdUUID},
		{"ceph", "-c", conf, "osd", "new", osdUUID},
		{"ceph-osd", "-c", conf, "-i", "0"},
	} {
		if _, err := c.run(ctx, argv...); err != nil {
			return err
		}
	}
	return nil
}

// waitActive waits until the cluster serves I/O.
func (c *Cluster) waitActive(ctx context.Context) error {
	for {
		status := c.Status(ctx)
		if status.Healthy() {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("not up in time, daemons %+v: %w\n%s", status.Daemons, ctx.Err(), c.logText(osdName))
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// logText is the end of a daemon's log, for errors.
func (c *Cluster) logText(daemon string) string {
	const most = 4 << 10
	text, err := os.ReadFile(filepath.Join(c.LogDir(), daemon+".log"))
	if err != nil {
		return ""
	}
	return string(text[max(0, len(text)-most):])
}

// daemonKeyring is the path of the keyring with the daemons' and the administrator's keys.
func (c *Cluster) daemonKeyring() string { return filepath.Join(c.desc.Dir, "daemon.keyring") }

// Keyring is the path of a user's keyring file, where ceph.conf looks for it.
func (c *Cluster) Keyring(user string) string { return filepath.Join(c.desc.Dir, user+".keyring") }

// daemonKeys are the secrets that a cluster is born with.
type daemonKeys struct{ mon, admin, mgr, osd string }

func newDaemonKeys(now time.Time) daemonKeys {
	return daemonKeys{mon: newKey(now), admin: newKey(now), mgr: newKey(now), osd: newKey(now)}
}

// daemons is the keyring that the monitor's store is made from: it imports every entry.
func (k daemonKeys) daemons() string {
	var ring keyring
	ring.add("mon.", k.mon, "mon", "allow *")
	ring.add("client.admin", k.admin, "mon", "allow *", "osd", "allow *", "mgr", "allow *")
	ring.add(mgrName, k.mgr, "mon", "allow profile mgr", "osd", "allow *")
	ring.add(osdName, k.osd, "mon", "allow profile osd", "mgr", "allow profile osd", "osd", "allow *")
	return ring.text.String()
}

// adminOnly is the keyring for clients.
func (k daemonKeys) adminOnly() string {
	var ring keyring
	ring.add("client.admin", k.admin)
	return ring.text.String()
}
