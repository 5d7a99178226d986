//go:build live && !long

package random_test

import "time"

const defaultDuration = 45 * time.Second
