//go:build live

// Package live tests the daemon end to end: real clusters, real images, and Ceph's own programs as judges.
package live

import (
	"testing"

	"github.com/rbdwarden/rbdwarden/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }
