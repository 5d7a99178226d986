package report

// Limit is a limit on bytes a second that is in force, as a worker has it, or all workers of a
// daemon together.
type Limit struct {
	Scope     string `json:"scope"`          // "daemon", "pool" or "image"
	Pool      string `json:"pool,omitempty"` // of a pool or an image
	Namespace string `json:"namespace,omitempty"`
	GlobalID  string `json:"global_id,omitempty"`
	Name      string `json:"name,omitempty"` // of an image; "" while it is not known
	Kind      string `json:"kind"`           // "replay" or "sync"
	// BytesPerSecond is the whole limit; 0: somebody has lifted what an option says.
	BytesPerSecond uint64  `json:"bytes_per_second"`
	By             string  `json:"by"`   // "option", or who has set it by command
	Part           float64 `json:"part"` // of the whole, that whoever tells of it has
	// Bytes were let through since the worker started, or has begun to read the image; Waited
	// is how often somebody had to wait, Waiting how many do now.
	Bytes   uint64 `json:"bytes"`
	Waited  uint64 `json:"waited"`
	Waiting int    `json:"waiting"`
}

// SameAs tells whether both are about the same.
func (l Limit) SameAs(other Limit) bool {
	return l.Kind == other.Kind && l.Pool == other.Pool && l.Namespace == other.Namespace && l.GlobalID == other.GlobalID
}
