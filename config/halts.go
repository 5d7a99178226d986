package config

import "slices"

// Halt is an operator's wish that something is not mirrored until further notice, or that
// it is mirrored again although something around it is not. It is about an image, or with
// an empty GlobalID about a pool in all its namespaces, or with an empty Pool about all.
type Halt struct {
	Pool      string `json:"pool,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	GlobalID  string `json:"global_id,omitempty"`
	// Reason is what the status says of what is stopped; "" is not stopped.
	Reason string `json:"reason,omitempty"`
}

// covers tells whether everything that other is about is also what h is about.
func (h Halt) covers(other Halt) bool {
	switch {
	case h.Pool == "":
		return true
	case h.Pool != other.Pool:
		return false
	case h.GlobalID == "":
		return true
	}
	return h.Namespace == other.Namespace && h.GlobalID == other.GlobalID
}

// Halts are all such wishes, oldest first: where several are about the same thing, the last
// one counts. The daemon keeps them for its workers, so that an image that was stopped is
// not started by a worker's death.
type Halts []Halt

// With is h with a new wish. Those that it makes void are gone, so the list does not grow
// with the number of commands.
func (h Halts) With(wish Halt) Halts {
	kept := slices.DeleteFunc(slices.Clone(h), wish.covers)
	if kept.reason(wish) == wish.Reason {
		return kept // nothing else is in force anyway
	}
	return append(kept, wish)
}

// Stopped tells whether an image is to be left alone, and what its status says. Without
// an image it is about new ones of the pool.
func (h Halts) Stopped(pool, namespace, globalID string) (reason string, stopped bool) {
	reason = h.reason(Halt{Pool: pool, Namespace: namespace, GlobalID: globalID})
	return reason, reason != ""
}

func (h Halts) reason(of Halt) string {
	for _, halt := range slices.Backward(h) {
		if halt.covers(of) {
			return halt.Reason
		}
	}
	return ""
}
