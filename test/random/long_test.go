//go:build live && long

package random_test

import "time"

const (
	defaultDuration = 10 * time.Minute
	defaultSeed     = 0
)
