package report

import "time"

// Cluster is what all daemons of a site say of themselves, as one of them has collected it.
type Cluster struct {
	FSID  string    `json:"fsid,omitempty"` // of the local Ceph cluster
	Asked string    `json:"asked"`          // the daemon that has collected it: "HOST, pid PID"
	Taken time.Time `json:"taken"`
	// Frozen: RADOS cannot be read, and the daemons are those that were last known.
	Frozen  bool            `json:"frozen"`
	Daemons []ClusterDaemon `json:"daemons"`
	Pools   []Leadership    `json:"pools"`
	Notes   []string        `json:"notes,omitempty"` // what else a person should know
}

// ClusterDaemon is one of the site's daemons. It is known by its workers, which are the
// members of the pools.
type ClusterDaemon struct {
	Host    string      `json:"host"`
	PID     int         `json:"pid"`
	Members []string    `json:"members"` // ids of its workers
	State   DaemonState `json:"state"`
	Text    string      `json:"text,omitempty"`   // why it is not heard
	Since   time.Time   `json:"since,omitzero"`   // when it was found dead
	Report  *Daemon     `json:"report,omitempty"` // if it answers
}

// Name is how people are told of the daemon.
func (d ClusterDaemon) Name() string { return DaemonName(d.Host, d.PID) }

// DaemonState is how a daemon is to another one that asks it.
type DaemonState string

// The states of another daemon.
const (
	DaemonAnswers DaemonState = "answers"
	DaemonSilent  DaemonState = "silent" // its members live, but it did not answer in time
	DaemonDead    DaemonState = "dead"   // all its members are dead, or taken for dead
)

// Leadership tells who leads a pool.
type Leadership struct {
	Pool string `json:"pool"`
	ID   int64  `json:"id"`
	// Member leads, "" if nobody is known to; the rest is where it is, if it is one of the
	// site's daemons and not rbd-mirror.
	Member string `json:"member,omitempty"`
	Host   string `json:"host,omitempty"`
	PID    int    `json:"pid,omitempty"` // of the daemon
	Worker int    `json:"worker"`
	// Images counts those of all daemons that were heard, in all namespaces.
	Images int `json:"images"`
}

// Leaders finds out from what daemons say who leads which pool.
func (c Cluster) Leaders() []Leadership {
	var all []Leadership
	at := map[int64]int{}
	for _, d := range c.Daemons {
		if d.Report == nil {
			continue
		}
		for _, w := range d.Report.Workers {
			for _, p := range w.Pools {
				i, ok := at[p.ID]
				if !ok {
					i = len(all)
					at[p.ID], all = i, append(all, Leadership{Pool: p.Name, ID: p.ID})
				}
				l := &all[i]
				l.Images += len(p.Images)
				switch {
				case p.Leader:
					l.Member, l.Host, l.PID, l.Worker = p.InstanceID, d.Host, d.PID, w.Index
				case l.Host == "" && p.LeaderID != "":
					l.Member = p.LeaderID
				}
			}
		}
	}
	return all
}
