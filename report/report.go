// Package report is the one structure in which rbd-warden tells what it is doing.
// Actors fill it in; the command line, the admin socket, the status page and the
// metrics render it. It is plain data: it goes through JSON unchanged, and the JSON
// names are an interface that scripts may rely on.
//
// A report is a snapshot. Whoever makes one copies what it says; nobody changes a
// report that was handed out.
package report

import "time"

// Daemon is the root of the supervision tree: one daemon process on one host.
type Daemon struct {
	Version string    `json:"version"`
	Host    string    `json:"host"`
	PID     int       `json:"pid"`
	Cluster string    `json:"cluster"` // name of the local cluster, as in "ceph"
	Entity  string    `json:"entity"`  // whom it authenticates as, as in "client.rbd-mirror.a"
	Started time.Time `json:"started"`
	Taken   time.Time `json:"taken"` // when this snapshot was taken
	Stops   bool      `json:"stops"` // it was asked to stop
	Workers []Worker  `json:"workers"`
	// Ends counts what has ended since the daemon started, by level ("image", "pool",
	// "worker") and reason, see Cause.Reason.
	Ends map[string]map[string]uint64 `json:"ends,omitempty"`
}

// WorkerState is what a worker process is in.
type WorkerState string

// The states of a worker process, as supervision sees them.
const (
	WorkerStarting WorkerState = "starting" // runs, is not ready yet
	WorkerReady    WorkerState = "ready"    // runs and does its work
	WorkerStopping WorkerState = "stopping" // was asked to stop, or is being killed
	WorkerWaiting  WorkerState = "waiting"  // dead; starts again at NextStart
	WorkerParked   WorkerState = "parked"   // died too often; retried slowly, at NextStart
	WorkerStopped  WorkerState = "stopped"  // dead and not to be started again
)

// Worker is one worker process. The daemon fills in the first group of fields, the
// worker the second.
type Worker struct {
	Index     int         `json:"index"`
	PID       int         `json:"pid"` // 0 while no process runs
	State     WorkerState `json:"state"`
	Since     time.Time   `json:"since"` // when it entered State
	Restarts  int         `json:"restarts"`
	LastCause *Cause      `json:"last_cause,omitempty"` // of the last death
	History   []Cause     `json:"history,omitempty"`    // the last deaths, newest last
	NextStart time.Time   `json:"next_start,omitzero"`
	RSS       int64       `json:"rss_bytes"` // resident memory, in bytes
	Memory    *Memory     `json:"memory,omitempty"`
	LastHeard time.Time   `json:"last_heard"`     // last heartbeat
	LastTold  time.Time   `json:"last_told"`      // when the second group was told
	Waits     string      `json:"waits,omitzero"` // what it waits for, "" for nothing

	// Drained says who has told it to give its images away; "" if nobody did.
	Drained string `json:"drained,omitempty"`
	// Parts are its parts in pools, as a member of each.
	Parts []Part `json:"parts,omitempty"`

	Member string  `json:"member,omitempty"` // its name among the members of the cluster
	FSID   string  `json:"fsid,omitempty"`   // of the local Ceph cluster
	Budget *Budget `json:"budget,omitempty"`
	// Limits are those on bytes a second that are in force.
	Limits []Limit `json:"limits,omitempty"`
	// LocalSocket is the admin socket of the connection to the local cluster.
	LocalSocket string `json:"local_admin_socket,omitempty"`
	// Syncs are the initial syncs of images, Deletions the removals of copies whose primary
	// is gone.
	Syncs     *Slots   `json:"syncs,omitempty"`
	Deletions *Slots   `json:"deletions,omitempty"`
	Replayed  Replayed `json:"replayed"`
	Pools     []Pool   `json:"pools"`
	Notes     []string `json:"notes,omitempty"` // anything else that a person should know
}

// Part is what a worker has of a pool by the image map, and who could take it.
type Part struct {
	PoolID int64    `json:"pool_id"`
	Images int      `json:"images"`
	Takers []string `json:"takers"` // seats of the other members that take images
	Frozen bool     `json:"frozen,omitempty"`
}

// Slots is the use of a bound on how many of something are under way together.
type Slots struct {
	Limit   int `json:"limit"`
	Running int `json:"running"`
	Waiting int `json:"waiting"`
}

// Plus adds the use of another worker's bound; nil adds nothing.
func (s Slots) Plus(other *Slots) Slots {
	if other == nil {
		return s
	}
	return Slots{s.Limit + other.Limit, s.Running + other.Running, s.Waiting + other.Waiting}
}

// Replayed counts what was replayed since a worker, or an image's actor, started.
type Replayed struct {
	Entries uint64 `json:"entries"`
	Bytes   uint64 `json:"bytes"`
	// Seconds is the sum, over all entries, of the time from when an entry's turn came until
	// it was durable.
	Seconds float64 `json:"seconds"`
}

// Add adds another count to this one.
func (r *Replayed) Add(other Replayed) {
	r.Entries += other.Entries
	r.Bytes += other.Bytes
	r.Seconds += other.Seconds
}

// Memory is the limit of a worker's memory, in bytes, and who enforces it.
type Memory struct {
	Limit int64 `json:"limit_bytes"` // 0: none
	// Group is the worker's own cgroup, in which the kernel enforces the limit; "" if it
	// has none: then its resident memory is watched. Note says why.
	Group   string `json:"group,omitempty"`
	Current int64  `json:"group_bytes,omitempty"`      // what the group uses
	Peak    int64  `json:"group_peak_bytes,omitempty"` // the most that it has used
	Note    string `json:"note,omitempty"`
}

// Budget is the use of a bound on bytes in flight.
type Budget struct {
	Used  int64 `json:"used_bytes"`
	Limit int64 `json:"limit_bytes"` // at this moment: memory pressure makes it smaller
	Full  int64 `json:"full_bytes"`  // what Limit is without pressure
	Peak  int64 `json:"peak_bytes"`  // the most that was used
	// Waiting is how many reads wait for others to be done with what they hold.
	Waiting int `json:"waiting"`
}

// Health is the health of a pool, in the words of "rbd mirror pool status".
type Health string

// The healths of a pool.
const (
	HealthOK      Health = "OK"
	HealthWarning Health = "WARNING"
	HealthError   Health = "ERROR"
	HealthUnknown Health = "UNKNOWN"
)

// Callout is something that is not well with a pool, in the words of the service map.
type Callout struct {
	Level string `json:"level"` // "info", "warning" or "error"
	Text  string `json:"text"`
}

// The levels of callouts.
const (
	LevelInfo    = "info"
	LevelWarning = "warning"
	LevelError   = "error"
)

// Pool is one mirrored pool and namespace with one peer.
type Pool struct {
	Name      string    `json:"name"`
	ID        int64     `json:"id"`
	Namespace string    `json:"namespace"`
	Peer      Peer      `json:"peer"`
	Health    Health    `json:"health"`
	Callouts  []Callout `json:"callouts,omitempty"` // what is not well
	Leader    bool      `json:"leader"`             // this worker leads the pool
	Stopped   bool      `json:"stopped"`            // by an operator, until it is started
	// InstanceID is that of the worker's client; LeaderID that of who leads instead.
	InstanceID string `json:"instance_id,omitempty"`
	// RemoteSocket is the admin socket of the connection to the peer.
	RemoteSocket string  `json:"remote_admin_socket,omitempty"`
	LeaderID     string  `json:"leader_id,omitempty"`
	Waits        string  `json:"waits,omitempty"`
	Restarts     int     `json:"restarts"`
	LastCause    *Cause  `json:"last_cause,omitempty"`
	History      []Cause `json:"history,omitempty"` // the last ends of its actor, newest last
	Images       []Image `json:"images"`
	// Trash are the copies that mirroring has put into the pool's trash and that are still to be
	// deleted, as its leader knows them.
	Trash []Deletion `json:"trash,omitempty"`
}

// Deletion is a copy in the trash that is to be deleted.
type Deletion struct {
	ImageID string    `json:"image_id"`
	Due     time.Time `json:"due"`     // when it is tried next, or its deferment ends
	Running bool      `json:"running"` // it is being deleted, or waits for a slot
	Retries int       `json:"retries"` // attempts that failed
	// Error and Errno say why the last attempt failed; "" and 0 if none did.
	Error string `json:"error,omitempty"`
	Errno int    `json:"errno,omitempty"`
}

// Peer is the cluster that a pool is mirrored from.
type Peer struct {
	UUID       string `json:"uuid"`
	Site       string `json:"site"`
	Client     string `json:"client"` // whom we authenticate as there
	FSID       string `json:"fsid,omitempty"`
	MirrorUUID string `json:"mirror_uuid,omitempty"`
	Reachable  bool   `json:"reachable"`
}

// Image is one mirrored image that a worker owns.
type Image struct {
	Pool      string `json:"pool"`
	Namespace string `json:"namespace"`
	Name      string `json:"name"`      // "" while it is not known
	GlobalID  string `json:"global_id"` // the same on every site
	LocalID   string `json:"local_id,omitempty"`
	RemoteID  string `json:"remote_id,omitempty"`

	// State is the status word of "rbd mirror image status", without "up+".
	State string `json:"state"`
	// Step is the finer state: where bootstrap or replay stands, as in
	// "GET_REMOTE_TAGS".
	Step        string    `json:"step,omitempty"`
	Description string    `json:"description"`
	Since       time.Time `json:"since"`           // when it entered State
	Waits       string    `json:"waits,omitempty"` // what it waits for

	// EntriesBehind counts journal entries on the primary that are not safe here;
	// -1 if that is not known.
	EntriesBehind int64 `json:"entries_behind"`
	// LagSeconds is the age of the oldest of those entries; 0 if there are none,
	// -1 if that is not known.
	LagSeconds      float64 `json:"lag_seconds"`
	BytesPerSecond  float64 `json:"bytes_per_second"`
	EventsPerSecond float64 `json:"events_per_second"`
	// SyncPercent is the progress of an initial sync under way; -1 if there is none.
	SyncPercent float64   `json:"sync_percent"`
	BytesHeld   int64     `json:"bytes_held"` // of the worker's budget
	Replayed    Replayed  `json:"replayed"`
	Primary     *Position `json:"primary_position,omitempty"`
	Safe        *Position `json:"safe_position,omitempty"`

	Restarts int  `json:"restarts"`
	Parked   bool `json:"parked"`
	// Stopped and Paused are by an operator. A paused image keeps its lock and its place in
	// the journal; until it replays (Step PAUSED) it is yet to be paused.
	Stopped bool `json:"stopped"`
	Paused  bool `json:"paused"`
	// Settled is when it last came to rest: it began to replay or to hold still, or it
	// stopped and what follows was decided.
	Settled   time.Time `json:"settled,omitzero"`
	NextStart time.Time `json:"next_start,omitzero"`
	LastCause *Cause    `json:"last_cause,omitempty"`
	History   []Cause   `json:"history,omitempty"` // the last ends, of whatever it is part of, too; newest last
	// StalledSeconds is for how long it has made no progress although it should; 0: it does.
	StalledSeconds float64 `json:"stalled_seconds,omitempty"`
	// HeldBack is the limit on bytes a second that makes it slower than it could be; "": none.
	HeldBack string `json:"held_back_by,omitempty"`
	// Trace is newest last and bounded. Only the daemon has it, for who asks for it.
	Trace []Step `json:"trace,omitempty"`
}

// Position is a place in a journal.
type Position struct {
	Tag   uint64 `json:"tag_tid"`
	Entry uint64 `json:"entry_tid"`
}

// Step is one line of an image's trace: a message and where it led to. Without states it
// is something that happened to the image's actor or its worker.
type Step struct {
	When    time.Time `json:"when"`
	From    string    `json:"from"`
	To      string    `json:"to"`
	Message string    `json:"message"`
	Text    string    `json:"text,omitempty"`
	// Count is how many messages of that kind, while the image stayed in the state, the line
	// stands for; When is that of the last one.
	Count uint64 `json:"count,omitempty"`
	// Took is how long what the last one answers had taken, Longest the longest of all, in
	// nanoseconds.
	Took    time.Duration `json:"took_nanos,omitempty"`
	Longest time.Duration `json:"longest_nanos,omitempty"`
}
