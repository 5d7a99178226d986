//go:build live && long

package live

import (
	"fmt"
	"testing"

	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestEveryKindOfImageIsMirroredForLong is TestEveryKindOfImageIsMirrored with more of everything.
func TestEveryKindOfImageIsMirroredForLong(t *testing.T) {
	for seed := *kindSeed; seed < *kindSeed+5; seed++ {
		t.Run(fmt.Sprintf("seed %d", seed), func(t *testing.T) {
			churnKinds(t, harness.SharedPair(t), seed, 20)
		})
	}
}
