package site

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/pool"
	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
)

// lingering is a pool's status sink whose end takes a while, as that of images does.
type lingering struct{ ended func() }

func (lingering) Set(string, report.Image) {}
func (lingering) Remove(string)            {}
func (lingering) Forget(string)            {}
func (l lingering) Close(context.Context) {
	time.Sleep(20 * time.Millisecond)
	l.ended()
}

// flapping is a Party that only says whether it works.
type flapping struct{ run func(told coordinator.Told) }

func (f flapping) Run(_ context.Context, told coordinator.Told) { f.run(told) }
func (flapping) Namespaces([]string)                            {}
func (flapping) Listed(string, []string, bool)                  {}
func (flapping) Reaches(string, bool)                           {}
func (flapping) Applied(string, uint64)                         {}
func (flapping) Trashed()                                       {}
func (flapping) Release()                                       {}
func (flapping) Leaving()                                       {}

// The peer's record changes, or leadership is lost and won back, as fast as can be: a
// namespace never has two actors, for both would open its images over one connection.
func TestNamespaceHasOneActorAtATime(t *testing.T) {
	var (
		mu             sync.Mutex
		alive, most    int
		made           []string
		finds          int
		leads, unleads func()
	)
	opt := Options{
		Find: func(context.Context) ([]Found, error) {
			mu.Lock()
			defer mu.Unlock()
			finds++
			uuid := string(rune('a' + finds/10%3)) // a new record every ten looks
			return []Found{{
				FoundPool: mirror.FoundPool{Pool: mirror.Pool{
					Pool: rados.Pool{ID: 1, Name: "rbd"}, Mode: cephmirror.ModePool, MirrorUUID: "local",
					Peers: []cephmirror.Peer{{UUID: uuid, Direction: cephmirror.DirectionRXTX}},
				}, Source: uuid},
				Namespaces: []string{""},
			}}, nil
		},
		Join: func(int64) Party {
			return flapping{run: func(told coordinator.Told) {
				mu.Lock()
				defer mu.Unlock()
				leads, unleads = func() { told.Works(true, "") }, func() { told.Works(false, "test") }
				told.Works(true, "")
			}}
		},
		NewPool: func(_ context.Context, _ mirror.Pool, _ string, peer cephmirror.Peer) (pool.Options, error) {
			mu.Lock()
			defer mu.Unlock()
			alive++
			most = max(most, alive)
			made = append(made, peer.UUID)
			return pool.Options{
				Key: messages.PoolKey{Pool: "rbd"}, Timeout: time.Second, Log: zerolog.Nop(),
				Connect: func(context.Context) (*pool.Remote, error) { return nil, errors.New("nobody there") },
				Status: lingering{func() {
					mu.Lock()
					alive--
					mu.Unlock()
				}},
			}, nil
		},
		Service: func(context.Context, map[int64]mirror.ServicePool) error { return nil },
		Ready:   func() {}, Fenced: func(error) {},
		Refresh: time.Millisecond, Publish: time.Hour, Timeout: time.Second, Log: zerolog.Nop(),
	}
	system := actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) }))
	root := system.Root.Spawn(Props(opt))
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		mu.Lock()
		enough := len(made) >= 12
		flap := leads != nil && finds%7 == 0
		mu.Unlock()
		if enough {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("only %q were made", made)
		}
		if flap {
			unleads()
			leads()
		}
	}
	if _, err := system.Root.RequestFuture(root, Stop{}, 10*time.Second).Result(); err != nil {
		t.Error(err)
	}
	mu.Lock()
	defer mu.Unlock()
	if most != 1 || alive != 0 {
		t.Errorf("%d actors at a time, %d are left", most, alive)
	}
}
