package compare

import (
	"strings"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
)

// Pair is a snapshot that both images have.
type Pair struct {
	A, B *image.Snapshot
}

// mirrorPrefix begins the names of snapshots that mirroring makes for itself: during a
// first copy the local ones are not complete (src/tools/rbd_mirror/image_sync/Utils.cc).
const mirrorPrefix = ".rbd-mirror."

// Common lists the user snapshots that both images have by name, the newest of a's
// first. Snapshots of mirroring itself are left out.
func Common(a, b *image.Header) []Pair {
	var out []Pair
	for i := len(a.Snapshots) - 1; i >= 0; i-- {
		s := &a.Snapshots[i]
		if strings.HasPrefix(s.Name, mirrorPrefix) {
			continue
		}
		if p, ok := Named(a, b, s.Name); ok && p.A == s {
			out = append(out, p)
		}
	}
	return out
}

// Named finds the user snapshot of a name on both sides.
func Named(a, b *image.Header, name string) (Pair, bool) {
	p := Pair{A: a.Snapshot(rbd.UserSnapshot{}, name), B: b.Snapshot(rbd.UserSnapshot{}, name)}
	return p, p.A != nil && p.B != nil
}
