//go:build live

package mem

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
)

// The live tests perform the same random operations on a real cluster, whose
// ceph.conf WARDEN_TEST_CONF is, and on a Store; everything answered must be equal.
// A failure prints the seed, which is always the same in make test, and a new one in
// make test-long.

// anySeed says that the clock gives the seed.
var anySeed bool

// world is one of the two.
type world struct {
	io    rados.IOContext
	store *Store // nil: the real one
}

// worlds open the same pool in both.
func worlds(t *testing.T) (real, fake world) {
	t.Helper()
	conf := os.Getenv("WARDEN_TEST_CONF")
	if conf == "" {
		t.Fatal("WARDEN_TEST_CONF is not set")
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := librados.Connect(ctx, librados.Config{ConfFile: conf})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	const pool = "mem-test"
	for _, cmd := range []map[string]any{
		{"prefix": "osd pool create", "pool": pool, "pg_num": 8},
		{"prefix": "osd pool application enable", "pool": pool, "app": "rbd"},
	} {
		if _, _, err := c.MonCommand(ctx, cmd, nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.WaitForLatestMap(ctx); err != nil {
		t.Fatal(err)
	}
	real.io, err = c.Open(ctx, pool, fmt.Sprintf("%s-%d", t.Name(), time.Now().UnixNano()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(real.io.Close)
	fake.store = New(Options{})
	fake.store.AddPool(pool)
	if fake.io, err = fake.store.Connect().Open(ctx, pool, ""); err != nil {
		t.Fatal(err)
	}
	return real, fake
}

// action does the same thing in any world and gives what can be compared.
type action struct {
	name string
	do   func(ctx context.Context, w world) (any, error)
}

// compare runs an action in both worlds.
func compare(t *testing.T, real, fake world, history *[]string, a action) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	*history = append(*history, a.name)
	wantV, wantErr := a.do(ctx, real)
	gotV, gotErr := a.do(ctx, fake)
	// When it was done is all that may differ.
	times := cmp.Comparer(func(a, b time.Time) bool { return a.IsZero() == b.IsZero() })
	d := cmp.Diff(reason(wantErr), reason(gotErr))
	if d == "" && wantErr == nil {
		d = cmp.Diff(wantV, gotV, times, cmpopts.EquateEmpty())
	}
	if d != "" {
		object, _, _ := strings.Cut(a.name, ":")
		for _, h := range *history {
			if strings.HasPrefix(h, object+":") {
				t.Log(h)
			}
		}
		t.Fatalf("%s: (-ceph +mem)\n%s", a.name, d)
	}
}

// reason is what is comparable of an error.
func reason(err error) string {
	var mismatch *rados.MismatchError
	var errno syscall.Errno
	switch {
	case err == nil:
		return ""
	case errors.As(err, &mismatch):
		return mismatch.Error()
	case errors.As(err, &errno):
		return errno.Error()
	}
	return err.Error()
}

func ask[R any](name, object string, q class.Query[R]) action {
	return action{fmt.Sprintf("%s: %s", object, name), func(ctx context.Context, w world) (any, error) {
		return rados.Ask(ctx, w.io, object, q)
	}}
}

func tell(name, object string, calls ...class.Call) action {
	return action{fmt.Sprintf("%s: %s", object, name), func(ctx context.Context, w world) (any, error) {
		return nil, rados.Tell(ctx, w.io, object, calls...)
	}}
}

// dice is the source of random operations.
type dice struct{ *rand.Rand }

func (d dice) pick(names ...string) string { return names[d.IntN(len(names))] }

func (d dice) bytes(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = "ab\x00"[d.IntN(3)]
	}
	return b
}

// play compares n actions.
func play(t *testing.T, real, fake world, n int, next func(d dice) action) {
	t.Helper()
	seed := uint64(1)
	if anySeed {
		seed = uint64(time.Now().UnixNano())
	}
	if v := os.Getenv("WARDEN_TEST_SEED"); v != "" {
		var err error
		if seed, err = strconv.ParseUint(v, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("seed %d, which WARDEN_TEST_SEED can repeat", seed)
	d := dice{rand.New(rand.NewPCG(seed, 0))}
	var history []string
	for range n {
		compare(t, real, fake, &history, next(d))
	}
}

// newSnap allocates the same id in both worlds.
func newSnap(t *testing.T, real, fake world) ceph.SnapID {
	t.Helper()
	id, err := real.io.CreateSnapID(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	fake.store.mu.Lock()
	fake.store.nextSnap[fake.io.Pool().ID] = id
	fake.store.mu.Unlock()
	return id
}
