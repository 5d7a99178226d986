package harness

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/lab"
)

// Patience is how long a test waits for a daemon to do what takes it a moment. Upstream's daemon reports its state every
// 30 seconds only.
const Patience = 2 * time.Minute

// Status is what rbd mirror image status says.
type Status struct {
	State       string `json:"state"`
	Description string `json:"description"`
	Updated     string `json:"last_update"`
	Service     struct {
		DaemonID   string `json:"daemon_id"`
		InstanceID string `json:"instance_id"`
		Hostname   string `json:"hostname"`
	} `json:"daemon_service"`
	Peers []struct {
		Site        string `json:"site_name"`
		State       string `json:"state"`
		Description string `json:"description"`
	} `json:"peer_sites"`
}

// Replay is the JSON in the description of an image that is up+replaying.
type Replay struct {
	Behind *uint64 `json:"entries_behind_primary"`
}

// Replay parses the description; an image that does not replay has none.
func (s Status) Replay() (Replay, error) {
	var r Replay
	at := strings.Index(s.Description, "{")
	if at < 0 {
		return r, fmt.Errorf("no JSON in %q", s.Description)
	}
	err := json.Unmarshal([]byte(s.Description[at:]), &r)
	return r, err
}

// StatusOn reads the image's mirroring status on a cluster. It answers an error while the image is not there.
func (i *Image) StatusOn(c *lab.Cluster) (Status, error) {
	var s Status
	out, err := Try(c, "rbd", "mirror", "image", "status", "--format", "json", i.Spec())
	if err == nil {
		err = json.Unmarshal([]byte(out), &s)
	}
	return s, err
}

// WaitState waits until the secondary's status has a state (up+replaying, up+error, ...) and a description that
// contains all of the texts.
func (i *Image) WaitState(t testing.TB, state string, texts ...string) Status {
	t.Helper()
	return i.WaitStateOn(t, i.Secondary(), state, texts...)
}

// WaitStateOn is WaitState on a cluster of the caller's choice.
func (i *Image) WaitStateOn(t testing.TB, c *lab.Cluster, state string, texts ...string) Status {
	t.Helper()
	var s Status
	Eventually(t, Patience, func() string {
		var err error
		if s, err = i.StatusOn(c); err != nil {
			return err.Error()
		}
		for _, text := range texts {
			if !strings.Contains(s.Description, text) {
				return fmt.Sprintf("%s: %+v lacks %q", i.Spec(), s, text)
			}
		}
		if s.State != state {
			return fmt.Sprintf("%s: %+v, want %s", i.Spec(), s, state)
		}
		return ""
	})
	return s
}

// WaitReplayed waits until all that the primary has committed to its journal by now is committed by the mirror, and the
// secondary's status says that it replays and is not behind.
func (i *Image) WaitReplayed(t testing.TB) {
	t.Helper()
	from, to := i.Primary(), i.Secondary()
	target := i.JournalOn(t, from).Master()
	Eventually(t, Patience, func() string {
		if mirrored := i.JournalOn(t, from).Mirror(); mirrored.Before(target) {
			s, _ := i.StatusOn(to)
			return fmt.Sprintf("%s: mirror has committed %v, primary %v (%s: %s)", i.Spec(), mirrored, target, s.State, s.Description)
		}
		s, err := i.StatusOn(to)
		if err != nil {
			return err.Error()
		}
		replay, err := s.Replay()
		if s.State != "up+replaying" || err != nil || replay.Behind == nil || *replay.Behind != 0 {
			return fmt.Sprintf("%s: status %+v", i.Spec(), s)
		}
		return ""
	})
}

// PoolStatus is what rbd mirror pool status --verbose says.
type PoolStatus struct {
	Summary struct {
		Health       string         `json:"health"`
		DaemonHealth string         `json:"daemon_health"`
		ImageHealth  string         `json:"image_health"`
		States       map[string]int `json:"states"`
	} `json:"summary"`
	Daemons []struct {
		ServiceID  string `json:"service_id"`
		InstanceID string `json:"instance_id"`
		Hostname   string `json:"hostname"`
		Version    string `json:"ceph_version"`
		Leader     bool   `json:"leader"`
		Health     string `json:"health"`
		Callouts   []any  `json:"callouts"`
	} `json:"daemons"`
	Images []struct {
		Name string `json:"name"`
		Status
	} `json:"images"`
}

// PoolStatusOn reads the pool's mirroring status on a cluster.
func (p *Pool) PoolStatusOn(t testing.TB, c *lab.Cluster) PoolStatus {
	t.Helper()
	var s PoolStatus
	decode(t, Run(t, c, "rbd", "mirror", "pool", "status", "--verbose", "--format", "json", p.Name), &s)
	return s
}
