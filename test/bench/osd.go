package bench

import (
	"encoding/json"
	"path/filepath"

	"github.com/rbdwarden/rbdwarden/lab"
)

// osd is what an OSD has counted since it was started.
type osd struct {
	Ops float64 `json:"op"`           // operations of clients, however many steps they have
	In  float64 `json:"op_in_bytes"`  // bytes that clients sent
	Out float64 `json:"op_out_bytes"` // bytes that clients got
}

// osdOf reads the counters of a cluster's OSD.
func (r *Round) osdOf(c *lab.Cluster) osd {
	r.Helper()
	out, err := lab.Admin(r.Ctx, filepath.Join(c.RunDir(), "ceph-osd.0.asok"), map[string]any{"prefix": "perf dump", "format": "json"})
	r.must(err)
	var dump struct {
		OSD osd `json:"osd"`
	}
	r.must(json.Unmarshal(out, &dump))
	return dump.OSD
}

// osdPID is the process of a cluster's OSD.
func (r *Round) osdPID(c *lab.Cluster) int {
	for _, d := range c.Status(r.Ctx).Daemons {
		if d.Name == "osd.0" {
			return d.PID
		}
	}
	return 0
}
