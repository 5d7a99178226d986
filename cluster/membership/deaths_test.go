package membership

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
)

// sentry is a host's view of its processes: who is waited for, and who was asked about.
type sentry struct {
	mu    sync.Mutex
	waits map[string]func()
	asked map[string]int
	gone  map[string]bool
	blind map[string]bool // nobody's death can be awaited there
}

func (w *sentry) knownDead(identity string) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.asked[identity]++
	return w.gone[identity]
}

func (w *sentry) await(identity string, gone func()) (stop func(), waits bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.blind[identity] {
		return nil, false
	}
	w.waits[identity] = gone
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.waits, identity)
	}, true
}

func (w *sentry) questions(identity string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[identity]
}

func (w *sentry) waiting(identity string) func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.waits[identity]
}

// TestADeathIsAwaited: whose death is awaited nobody asks about until it is told; then it is
// asked about until it is certain, and seen at once. The others are asked about as ever.
func TestADeathIsAwaited(t *testing.T) {
	run(t, func(s *site) {
		host := &sentry{waits: map[string]func(){}, asked: map[string]int{}, gone: map[string]bool{}, blind: map[string]bool{"c": true}}
		client := s.store.Connect()
		io, err := client.Open(context.Background(), "rbd", "")
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(context.Background())
		a := &process{name: "a", client: client, io: io, stop: stop, ended: make(chan struct{})}
		a.Group = New(io, Options{Self: Member{Identity: "a"}, KnownDead: host.knownDead, AwaitDeath: host.await, Log: zerolog.Nop()})
		s.all = append(s.all, a)
		go func() {
			defer close(a.ended)
			a.err = a.Run(ctx)
		}()
		b := s.start("b")
		time.Sleep(20 * time.Second)
		if n := host.questions("b"); n > 0 {
			t.Errorf("asked %d times about who is awaited", n)
		}
		if host.waiting("a") != nil {
			t.Error("waits for its own death")
		}

		b.client.Crash()
		gone := host.waiting("b")
		gone() // before it is certain
		time.Sleep(500 * time.Millisecond)
		s.assertLiving(a, "a", "b")
		host.mu.Lock()
		host.gone["b"] = true
		host.mu.Unlock()
		s.until(150*time.Millisecond, "a sees b dead", func() bool { return a.View().KnownDead("b") })
		asked := host.questions("b")
		time.Sleep(20 * time.Second)
		if n := host.questions("b"); n > asked {
			t.Errorf("asked %d times more about who is known to be gone", n-asked)
		}
		if host.waiting("b") != nil {
			t.Error("waits for who is known to be gone")
		}

		c := s.start("c")
		time.Sleep(10 * time.Second)
		if n := host.questions("c"); n < 80 || n > 110 {
			t.Errorf("asked %d times in ten seconds about who cannot be awaited", n)
		}
		c.client.Crash()
		host.mu.Lock()
		host.gone["c"] = true
		host.mu.Unlock()
		s.until(200*time.Millisecond, "a sees c dead", func() bool { return a.View().KnownDead("c") })
		a.stop()
		<-a.ended
		if len(host.waits) > 0 {
			t.Error("still waits after its end")
		}
	})
}
