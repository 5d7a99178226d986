package coordinator

// Share is what this member runs of a pool and namespace.
type Share struct {
	Epoch uint64 // of the image map that it was read from
	// Run are the global ids of the images to run now. What is not in it is let go.
	Run map[string]struct{}
}

// Told is how a coordinator tells what becomes of its part in a pool. None of the functions
// blocks; they are called in the order of what happened, from one goroutine at a time.
type Told struct {
	// Works tells whether this member may run images of the pool; if not, why: for example
	// because an rbd-mirror daemon leads the pool.
	Works func(works bool, why string)
	// Leads and Lost tell of the leadership, in turns; Follows of who leads instead.
	Leads   func()
	Lost    func(reason error)
	Follows func(leader string)
	// Assigned tells of a new share.
	Assigned func(namespace string, share Share)
	// Trashed tells the leader that a member put something into the trash.
	Trashed func()
	// Fenced tells that this client is refused for good: the process has to end.
	Fenced func(err error)
}
