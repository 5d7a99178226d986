//go:build live

package journal

import (
	"os"
	"testing"

	"github.com/rbdwarden/rbdwarden/rados/librados"
)

// TestDumpLive prints the journal of WARDEN_TEST_IMAGE (pool, image id), for the eye.
func TestDumpLive(t *testing.T) {
	pool, id := os.Getenv("WARDEN_TEST_POOL"), os.Getenv("WARDEN_TEST_IMAGE")
	if id == "" {
		t.Skip("no WARDEN_TEST_IMAGE")
	}
	c, err := librados.Connect(t.Context(), librados.Config{ConfFile: os.Getenv("WARDEN_TEST_CONF")})
	must(t, err)
	defer c.Close()
	io, err := c.Open(t.Context(), pool, "")
	must(t, err)
	defer io.Close()
	must(t, Dump(t.Context(), io, id, os.Stdout, os.Getenv("WARDEN_TEST_JSON") != ""))
}
