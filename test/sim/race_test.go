//go:build race

package sim

// The race detector makes a run take five times as long.
func init() { *seeds = 200 }
