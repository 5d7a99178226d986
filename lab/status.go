package lab

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Daemon is the state of one daemon of the cluster.
type Daemon struct {
	// Name is the daemon's Ceph name: mon.a, mgr.x, osd.0.
	Name string `json:"name"`
	// PID is the process, zero where the daemon does not run.
	PID int `json:"pid"`
	// State is what the daemon says of itself (leader, active, ...), "down" where it does not run, "silent" where it
	// runs but does not answer.
	State string `json:"state"`
}

// Status is what is known of a cluster at one instant.
type Status struct {
	Name    string    `json:"name"`
	Dir     string    `json:"dir"`
	Conf    string    `json:"conf"`
	FSID    string    `json:"fsid"`
	MonHost string    `json:"mon_host"`
	Store   Store     `json:"store"`
	Started time.Time `json:"started"`
	Daemons []Daemon  `json:"daemons"`
}

// Healthy says whether the cluster serves reads and writes: its monitor is in quorum and its OSD active.
func (s Status) Healthy() bool {
	var mon, osd bool
	for _, d := range s.Daemons {
		mon = mon || d.Name == monName && d.State == "leader"
		osd = osd || d.Name == osdName && d.State == "active"
	}
	return mon && osd
}

// daemonNames are the daemons of a cluster in the order of their start.
var daemonNames = []string{monName, mgrName, osdName}

const (
	monName = "mon.a"
	mgrName = "mgr.x"
	osdName = "osd.0"
)

// Status asks the cluster's daemons how they are. It never waits longer than a second for a daemon that does not
// answer, and it asks them directly, not through the monitor, so that it also tells of a broken cluster.
func (c *Cluster) Status(ctx context.Context) Status {
	s := Status{
		Name: c.desc.Name, Dir: c.desc.Dir, Conf: c.Conf(), FSID: c.desc.FSID, MonHost: c.MonHost(),
		Store: c.desc.Store, Started: c.desc.Started,
	}
	for _, name := range daemonNames {
		s.Daemons = append(s.Daemons, c.daemonState(ctx, name))
	}
	return s
}

// daemonState asks one daemon.
func (c *Cluster) daemonState(ctx context.Context, name string) Daemon {
	d := Daemon{Name: name, PID: c.pid(name), State: "down"}
	if d.PID == 0 {
		return d
	}
	ctx, cancel := context.WithTimeout(ctx, time.Second)
	defer cancel()
	command := "status"
	if name == monName {
		command = "mon_status"
	}
	answer, err := Admin(ctx, c.socket(name), map[string]any{"prefix": command, "format": "json"})
	if err != nil {
		d.State = "silent"
		return d
	}
	var said struct {
		State string `json:"state"`
	}
	if err := json.Unmarshal(answer, &said); err != nil || said.State == "" {
		said.State = "running" // a mgr's status has no such field
	}
	d.State = said.State
	return d
}

// socket is the path of a daemon's admin socket: Ceph's default name in the cluster's run directory.
func (c *Cluster) socket(daemon string) string {
	return filepath.Join(c.RunDir(), "ceph-"+daemon+".asok")
}

// pid reads a daemon's pid file and answers the process if it lives and is the cluster's, else zero.
func (c *Cluster) pid(daemon string) int {
	text, err := os.ReadFile(filepath.Join(c.RunDir(), daemon+".pid"))
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || !alive(pid) || !belongs(pid, c.desc.Dir) {
		return 0
	}
	return pid
}

// daemons lists the processes of the cluster's own daemons.
func (c *Cluster) daemons() ([]int, error) {
	var pids []int
	for _, name := range daemonNames {
		if pid := c.pid(name); pid != 0 {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}
