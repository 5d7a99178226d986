package config

import (
	"slices"
	"strings"
)

// LimitKind is what a limit on bytes a second is about.
type LimitKind string

// The kinds of limits.
const (
	ReplayLimit LimitKind = "replay" // journal data
	SyncLimit   LimitKind = "sync"   // data that first copies and re-syncs read
)

// LimitKinds are all of them, in the order in which they are shown.
var LimitKinds = []LimitKind{ReplayLimit, SyncLimit}

// Option is the name of the option that sets such a limit.
func (k LimitKind) Option() string { return "rbd_warden_" + string(k) + "_bytes_per_second" }

// Limit is the limit of that kind for the daemon, in bytes a second; 0: none.
func (w Warden) Limit(k LimitKind) uint64 {
	if k == SyncLimit {
		return w.SyncRate
	}
	return w.ReplayRate
}

// LimitKey names what a limit is about: an image; with an empty GlobalID a pool with all of
// its namespaces; with an empty Pool the daemon.
type LimitKey struct {
	Pool      string `json:"pool,omitempty"`
	Namespace string `json:"namespace,omitempty"`
	GlobalID  string `json:"global_id,omitempty"`
}

// LimitWish is a limit that an operator has set while the daemon runs. It counts instead of
// what an option says about the same.
type LimitWish struct {
	LimitKey
	Kind  LimitKind `json:"kind"`
	Rate  uint64    `json:"rate"`         // bytes a second; 0: no limit, whatever an option says
	Words string    `json:"by,omitempty"` // who has set it
}

// LimitWishes are all of them.
type LimitWishes []LimitWish

// With is l with another wish, instead of one about the same.
func (l LimitWishes) With(wish LimitWish) LimitWishes {
	return append(l.Without(wish.LimitKey, wish.Kind), wish)
}

// Without is l without the wish about that.
func (l LimitWishes) Without(key LimitKey, kind LimitKind) LimitWishes {
	return slices.DeleteFunc(slices.Clone(l), func(w LimitWish) bool { return w.LimitKey == key && w.Kind == kind })
}

// Of is the wish about that; false if there is none.
func (l LimitWishes) Of(key LimitKey, kind LimitKind) (LimitWish, bool) {
	i := slices.IndexFunc(l, func(w LimitWish) bool { return w.LimitKey == key && w.Kind == kind })
	if i < 0 {
		return LimitWish{}, false
	}
	return l[i], true
}

// ImageLimits are the limits that an image's metadata, or a pool's, set, in bytes a second; a
// kind that is not there is not set.
type ImageLimits map[LimitKind]uint64

// LimitMetadata is the key of metadata that sets a limit: the option's name. With "conf_" before
// it, as other options have it, rbd refuses what it does not know.
func LimitMetadata(k LimitKind) string { return k.Option() }

// LimitsOf reads the limits from metadata. A value that is none counts as not set, as for
// the other options.
func LimitsOf(metadata map[string][]byte) ImageLimits {
	var out ImageLimits
	for _, k := range LimitKinds {
		value, ok := metadata[LimitMetadata(k)]
		if !ok {
			continue
		}
		if rate, err := ParseSize(string(value)); err == nil {
			if out == nil {
				out = ImageLimits{}
			}
			out[k] = rate
		}
	}
	return out
}

// ParseSize reads a number of bytes as Ceph's options have it: 20M and 20MiB are 20 × 2^20.
func ParseSize(s string) (uint64, error) {
	s = strings.TrimSpace(s)
	if unit, ok := strings.CutSuffix(s, "iB"); ok {
		s = unit + "i"
	}
	return parseNumber(s, 1024)
}
