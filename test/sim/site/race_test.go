//go:build race

package site

// The race detector makes a run take several times as long.
func init() { *seeds = 20 }
