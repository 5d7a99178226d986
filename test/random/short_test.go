//go:build live && !long

package random_test

import "time"

// A short run has always the same operations: make test is to find what a change has broken, not what nobody has found yet.
const (
	defaultDuration = 20 * time.Second
	defaultSeed     = 21
)
