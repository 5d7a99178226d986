package mirror

import (
	"encoding/json"
	"strconv"
	"strings"
)

// ServiceName is what daemons are registered as in the service map, which "rbd mirror
// pool status" and "ceph -s" read. (src/tools/rbd_mirror/ServiceDaemon.cc)
const ServiceName = "rbd-mirror"

// ServiceMetadata is what a daemon registers with, besides what librados adds
// (hostname, versions). authID is the cephx name without "client.". The service's id
// is the instance id.
func ServiceMetadata(authID string, instanceID uint64) (id string, metadata map[string]string) {
	id = strconv.FormatUint(instanceID, 10)
	return id, map[string]string{
		"id":          strings.TrimPrefix(authID, "rbd-mirror."),
		"instance_id": id,
	}
}

// CalloutLevel is how bad a callout is; the worst of all is the daemon's health.
type CalloutLevel string

// The levels.
const (
	CalloutInfo    CalloutLevel = "info"
	CalloutWarning CalloutLevel = "warning"
	CalloutError   CalloutLevel = "error"
)

// Callout is a line that "rbd mirror pool status --verbose" shows with the daemon.
type Callout struct {
	Level CalloutLevel `json:"level"`
	Text  string       `json:"text"`
}

// ImageCounts counts the images of a pool or namespace. What is nil is not told:
// local and remote are the leader's to tell, the others each daemon's.
type ImageCounts struct {
	Assigned *uint64 `json:"image_assigned_count,omitempty"` // replayed by this daemon
	Error    *uint64 `json:"image_error_count,omitempty"`
	Local    *uint64 `json:"image_local_count,omitempty"`
	Remote   *uint64 `json:"image_remote_count,omitempty"`
	Warning  *uint64 `json:"image_warning_count,omitempty"`
}

// ServicePool is what a daemon reports of one pool. Every daemon must report every
// mirrored pool, or its health is a warning ("not reporting status for pool").
type ServicePool struct {
	Name     string
	Callouts []Callout
	ImageCounts
	// InstanceID is that of the client that writes the local statuses: "rbd" finds
	// the daemon of an image by it.
	InstanceID uint64
	// Leader must be true in exactly one daemon, or the pool's health is a warning.
	Leader bool
	// Namespaces are the mirrored ones other than the default.
	Namespaces map[string]ImageCounts
}

// ServiceStatus is the status of a daemon in the service map: pools by id.
func ServiceStatus(pools map[int64]ServicePool) map[string]string {
	type poolStatus struct {
		Name     string             `json:"name"`
		Callouts map[string]Callout `json:"callouts"`
		ImageCounts
		InstanceID string                 `json:"instance_id,omitempty"`
		Leader     bool                   `json:"leader"`
		Namespaces map[string]ImageCounts `json:"namespaces,omitempty"`
	}
	status := make(map[string]poolStatus, len(pools))
	for id, p := range pools {
		s := poolStatus{Name: p.Name, Callouts: map[string]Callout{}, ImageCounts: p.ImageCounts, Leader: p.Leader, Namespaces: p.Namespaces}
		if p.InstanceID != 0 {
			s.InstanceID = strconv.FormatUint(p.InstanceID, 10)
		}
		for i, c := range p.Callouts {
			s.Callouts[strconv.Itoa(i+1)] = c
		}
		status[strconv.FormatInt(id, 10)] = s
	}
	b, err := json.Marshal(status)
	if err != nil {
		panic(err) // strings, numbers and maps of them always marshal
	}
	return map[string]string{"json": string(b)}
}
