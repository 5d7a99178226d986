package config

import "slices"

// Halt is an operator's wish that something is not mirrored until further notice, or that
// it is mirrored again although something around it is not. It is about an image, or with
// an empty GlobalID about a namespace, with an empty Namespace about a pool in all its
// namespaces, or with an empty Pool about all.
type Halt struct {
	Pool      string `json:"pool,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	GlobalID  string `json:"global_id,omitempty"`
	// Reason is what the status says of what is stopped or paused; "" is neither.
	Reason string `json:"reason,omitempty"`
	// Pause: an image keeps its lock and its place in the journal meanwhile.
	Pause bool `json:"pause,omitempty"`
}

// String is the wish in a few words, as in "rbd/ns/*: paused by root".
func (h Halt) String() string {
	what := "*"
	switch {
	case h.GlobalID != "":
		what = h.Pool + "/" + h.Namespace + "/" + h.GlobalID
	case h.Namespace != "":
		what = h.Pool + "/" + h.Namespace + "/*"
	case h.Pool != "":
		what = h.Pool + "/*"
	}
	reason := h.Reason
	if reason == "" {
		reason = "mirrored"
	}
	return what + ": " + reason
}

// covers tells whether everything that other is about is also what h is about.
func (h Halt) covers(other Halt) bool {
	switch {
	case h.Pool == "":
		return true
	case h.Pool != other.Pool:
		return false
	case h.GlobalID == "":
		return h.Namespace == "" || h.Namespace == other.Namespace
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
	if was := kept.last(wish); was.Reason == wish.Reason && was.Pause == wish.Pause {
		return kept // nothing else is in force anyway
	}
	return append(kept, wish)
}

// Of is the wish that is in force for an image; its Reason is "" if the image is to be
// mirrored. Without an image it is about new ones of the namespace.
func (h Halts) Of(pool, namespace, globalID string) Halt {
	return h.last(Halt{Pool: pool, Namespace: namespace, GlobalID: globalID})
}

func (h Halts) last(of Halt) Halt {
	for _, halt := range slices.Backward(h) {
		if halt.covers(of) {
			return halt
		}
	}
	return Halt{}
}
