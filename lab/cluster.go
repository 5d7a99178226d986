package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"
)

// stateName is the file that makes a directory a cluster's.
const stateName = "lab.json"

// stopTimeout bounds how long Stop waits for killed processes to be gone.
const stopTimeout = 30 * time.Second

// description is what lab.json holds: all that another process needs to use or stop the cluster.
type description struct {
	Name    string    `json:"name"`
	Dir     string    `json:"dir"`
	FSID    string    `json:"fsid"`
	Store   Store     `json:"store"`
	MonPort int       `json:"mon_port"`
	Started time.Time `json:"started"`
	// Parent is the directory that was made for several clusters; the last to stop removes it. Empty: none was.
	Parent string `json:"parent,omitempty"`
}

// Cluster is a running (or once running) one-node Ceph cluster. Its methods may be called from several goroutines.
type Cluster struct {
	desc  description
	guard *guard
}

// Open answers the cluster in a directory, whoever started it. It does not look whether the cluster runs.
// A directory that holds no cluster gives ErrNotLab.
func Open(dir string) (*Cluster, error) {
	path, err := canonical(dir)
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	text, err := os.ReadFile(filepath.Join(path, stateName))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("lab: %s: %w", path, ErrNotLab)
	}
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	c := &Cluster{}
	if err := json.Unmarshal(text, &c.desc); err != nil {
		return nil, fmt.Errorf("lab: %s: %w", filepath.Join(path, stateName), err)
	}
	if c.desc.Dir != path {
		return nil, fmt.Errorf("lab: %s was made for %s: %w", path, c.desc.Dir, ErrNotLab)
	}
	return c, nil
}

// Name is the cluster's (and site's) name.
func (c *Cluster) Name() string { return c.desc.Name }

// Dir is the cluster's directory, absolute.
func (c *Cluster) Dir() string { return c.desc.Dir }

// FSID is the cluster's identity.
func (c *Cluster) FSID() string { return c.desc.FSID }

// MonHost is the monitor's address as ceph.conf spells it.
func (c *Cluster) MonHost() string { return monHost(c.desc.MonPort) }

// Conf is the path of the cluster's ceph.conf.
func (c *Cluster) Conf() string { return filepath.Join(c.desc.Dir, confName) }

// LogDir is the directory of the daemons' logs.
func (c *Cluster) LogDir() string { return filepath.Join(c.desc.Dir, "log") }

// RunDir is the directory of pid files and admin sockets.
func (c *Cluster) RunDir() string { return filepath.Join(c.desc.Dir, "run") }

// Environ is the environment for a process of the caller's that belongs to the cluster: Stop ends it too.
func (c *Cluster) Environ() []string { return environ(c.desc.Dir) }

// Stop ends every process of the cluster, waits for their end and removes the directory, and the one that it shared with
// other clusters if it was the last. A second Stop does nothing.
func (c *Cluster) Stop() error {
	ctx, cancel := context.WithTimeout(context.Background(), stopTimeout)
	defer cancel()
	if err := killAll(ctx, c.desc.Dir); err != nil {
		return fmt.Errorf("lab: stop %s: %w", c.desc.Dir, err)
	}
	if err := os.RemoveAll(c.desc.Dir); err != nil {
		return fmt.Errorf("lab: stop: %w", err)
	}
	if c.desc.Parent != "" {
		os.Remove(c.desc.Parent) // refused, rightly, while something else is in it
	}
	if c.guard != nil {
		c.guard.dismiss()
	}
	return nil
}

// Signal sends a signal to the cluster's daemons (monitor, mgr, OSD): SIGSTOP makes the cluster fall silent as a lost
// site does, SIGCONT brings it back. Clients' processes are left alone.
func (c *Cluster) Signal(signal syscall.Signal) error {
	pids, err := c.daemons()
	if err != nil {
		return err
	}
	for _, pid := range pids {
		if err := signalOwned(pid, c.desc.Dir, signal); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return nil
}

// SignalDaemon sends a signal to one of the cluster's daemons, by its Ceph name: mon.a, mgr.x or osd.0.
func (c *Cluster) SignalDaemon(name string, signal syscall.Signal) error {
	pid := c.pid(name)
	if pid == 0 {
		return fmt.Errorf("lab: %s does not run", name)
	}
	if err := signalOwned(pid, c.desc.Dir, signal); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	return nil
}

// save writes lab.json whole or not at all.
func (c *Cluster) save() error {
	text, err := json.MarshalIndent(c.desc, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(c.desc.Dir, stateName)
	if err := os.WriteFile(path+".new", append(text, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
