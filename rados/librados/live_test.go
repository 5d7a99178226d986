//go:build live

package librados

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/rados"
)

// The live tests need a cluster of their own: WARDEN_TEST_CONF is its ceph.conf, with
// client.admin's keyring.
func confFile(t testing.TB) string {
	t.Helper()
	conf := os.Getenv("WARDEN_TEST_CONF")
	if conf == "" {
		t.Fatal("WARDEN_TEST_CONF is not set")
	}
	return conf
}

func connectTest(t testing.TB, change ...func(*Config)) *Cluster {
	t.Helper()
	cfg := Config{ConfFile: confFile(t)}
	for _, f := range change {
		f(&cfg)
	}
	c, err := Connect(ctxFor(t, 30*time.Second), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

func ctxFor(t testing.TB, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

const testPool = "librados-test"

// openTest opens a namespace of the test's own.
func openTest(t testing.TB, c *Cluster) rados.IOContext {
	t.Helper()
	ctx := ctxFor(t, 60*time.Second)
	if _, _, err := c.MonCommand(ctx, map[string]any{"prefix": "osd pool create", "pool": testPool, "pg_num": 8}, nil); err != nil {
		t.Fatal(err)
	}
	if err := c.WaitForLatestMap(ctx); err != nil {
		t.Fatal(err)
	}
	io, err := c.Open(ctx, testPool, fmt.Sprintf("%s-%d", t.Name(), time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(io.Close)
	return io
}

func mustWrite(t testing.TB, io rados.IOContext, object string, op *rados.WriteOp) {
	t.Helper()
	if err := io.Write(ctxFor(t, 20*time.Second), object, op); err != nil {
		t.Fatal(err)
	}
}

func mustRead(t testing.TB, io rados.IOContext, object string, op *rados.ReadOp) {
	t.Helper()
	if err := io.Read(ctxFor(t, 20*time.Second), object, op); err != nil {
		t.Fatal(err)
	}
}

// readAt is the object's data at a snapshot.
func readAt(t testing.TB, io rados.IOContext, object string, snap ceph.SnapID) string {
	t.Helper()
	op := rados.ReadOp{Snap: snap}
	data := op.Read(0, 1<<20)
	mustRead(t, io, object, &op)
	return string(data.Data)
}
