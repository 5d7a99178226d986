package harness

import (
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
)

// Kind is a make of image: what rbd create is told of it.
type Kind struct {
	Name     string
	Features string // empty: Features
	// Size is what --size gets, in bytes with the unit B.
	Size  string
	Flags []string
}

// Kinds are the makes of images that mirroring meets: layouts, features, sizes, and shapes of journals. dataPool and
// journalPool name pools that both clusters have.
func Kinds(dataPool, journalPool string) []Kind {
	const noMap, noFlatten = "layering,exclusive-lock,journaling", "layering,exclusive-lock,object-map,fast-diff,journaling"
	return []Kind{
		{Name: "plain", Size: "12582912B"},
		{Name: "tiny-objects", Size: "401000B", Flags: []string{"--object-size", "4K"}},
		{Name: "small-objects", Size: "3000001B", Flags: []string{"--object-size", "64K"}},
		{Name: "large-objects", Size: "20000000B", Flags: []string{"--object-size", "32M"}},
		{Name: "striped", Size: "7777777B", Flags: []string{"--object-size", "1M", "--stripe-unit", "64K", "--stripe-count", "4"}},
		{Name: "striped-finely", Size: "999999B", Flags: []string{"--object-size", "16K", "--stripe-unit", "4K", "--stripe-count", "3"}},
		{Name: "striped-by-objects", Size: "3333333B", Flags: []string{"--object-size", "128K", "--stripe-unit", "128K", "--stripe-count", "5"}},
		{Name: "striped-over-one", Size: "3000000B", Flags: []string{"--object-size", "256K", "--stripe-unit", "32K", "--stripe-count", "1"}},
		{Name: "without-map", Size: "8388608B", Features: noMap, Flags: []string{"--object-size", "512K"}},
		{Name: "without-deep-flatten", Size: "8000000B", Features: noFlatten},
		{Name: "data-pool", Size: "8388608B", Flags: []string{"--data-pool", dataPool, "--object-size", "1M"}},
		{Name: "empty", Size: "0B", Flags: []string{"--object-size", "64K"}},
		{Name: "narrow-journal", Size: "2000000B", Flags: []string{"--object-size", "256K",
			"--journal-splay-width", "1", "--journal-object-size", "64K"}},
		{Name: "journal-apart", Size: "2000000B", Flags: []string{"--object-size", "256K",
			"--journal-splay-width", "13", "--journal-pool", journalPool}},
	}
}

// CreateKind creates an image of a kind on the primary.
func (p *Pool) CreateKind(t testing.TB, k Kind) *Image {
	t.Helper()
	features := k.Features
	if features == "" {
		features = Features
	}
	args := append([]string{"create", "--size", k.Size, "--image-feature", features}, k.Flags...)
	Run(t, p.Pair.Primary, "rbd", append(args, p.Name+"/"+k.Name)...)
	return &Image{Pool: p, Name: k.Name}
}

// NewPlainPool creates a pool on both clusters that is not mirrored itself: for data, or for journals. It is deleted when
// the test ends.
func NewPlainPool(t testing.TB, pair *lab.Pair, name string, args ...string) {
	t.Helper()
	for _, c := range []*lab.Cluster{pair.Primary, pair.Secondary} {
		Run(t, c, "ceph", append([]string{"osd", "pool", "create", name}, args...)...)
		Run(t, c, "ceph", "osd", "pool", "application", "enable", name, "rbd")
		t.Cleanup(func() {
			if _, err := Try(c, "ceph", "osd", "pool", "delete", name, name, "--yes-i-really-really-mean-it"); err != nil {
				t.Logf("pool %s is left on %s: %v", name, c.Name(), err)
			}
		})
	}
}

// FailOver demotes images on their primary and promotes them on the secondary.
func FailOver(t testing.TB, images ...*Image) {
	t.Helper()
	for _, i := range images {
		Run(t, i.Primary(), "rbd", "mirror", "image", "demote", i.Spec())
	}
	for _, i := range images {
		i.WaitState(t, "up+unknown")
		Eventually(t, Patience, func() string {
			if _, err := Try(i.Secondary(), "rbd", "mirror", "image", "promote", i.Spec()); err != nil {
				return err.Error()
			}
			return ""
		})
	}
}
