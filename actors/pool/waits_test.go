package pool

import (
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// TestAnErrorThatPassesIsNoRestart: an image that an error stops which passes by itself waits,
// and says for what; nothing is on record. An error that another attempt meets again is. Only
// what the local cluster does is evidence against the worker.
func TestAnErrorThatPassesIsNoRestart(t *testing.T) {
	const effect = "a core.StartTailing"
	for _, c := range []struct {
		name, cluster string
		class         rados.Class
		errno         syscall.Errno
		restarts      int
		evidence      bool
	}{
		{"the peer is away", "there", rados.Transient, syscall.ETIMEDOUT, 0, false},
		{"the local cluster is away", "here", rados.Transient, syscall.ETIMEDOUT, 0, true},
		{"the local cluster refuses", "here", rados.Permanent, syscall.EPERM, 1, true},
		{"something is wrong with the image", "here", rados.Permanent, syscall.EINVAL, 1, false},
		{"something is damaged", "there", rados.Corrupt, syscall.EBADMSG, 1, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, "a", "b")
			w.until("both replay", func() bool { return w.state("a") == "replaying" && w.state("b") == "replaying" })
			w.mu.Lock()
			w.fails = map[string]core.Failed{effect: {
				State: core.StartReplay, Class: c.class, Err: &rados.Error{Op: "write", Cluster: c.cluster, Pool: "rbd", Object: "o", Err: c.errno},
			}}
			w.mu.Unlock()
			for range 2 { // two attempts of one trouble
				w.system.Root.Send(w.pid, messages.ToImageNamed{GlobalID: "a", Message: messages.RestartImage{}})
				w.until("a says what it waits for", func() bool {
					s := w.status["a"]
					return s.State == "error" && strings.Contains(s.Description, "on cluster "+c.cluster) && s.LastCause != nil && s.LastCause.Class == c.class.String()
				})
			}
			w.mu.Lock()
			delete(w.fails, effect)
			w.mu.Unlock()
			w.system.Root.Send(w.pid, messages.ToImageNamed{GlobalID: "a", Message: messages.StartImage{}})
			w.until("a replays again", func() bool { return w.state("a") == "replaying" })
			w.mu.Lock()
			defer w.mu.Unlock()
			s, record := w.status["a"], w.ledger.Of(report.LevelImage, messages.ImageKey{PoolKey: messages.PoolKey{Pool: "rbd", PoolID: 1}, GlobalID: "a"}.String())
			if s.Restarts != c.restarts || record.Restarts != c.restarts || (s.LastCause != nil) != (c.restarts > 0) {
				t.Errorf("%d restarts, %d on record, last cause %v; want %d", s.Restarts, record.Restarts, s.LastCause, c.restarts)
			}
			told := ""
			for _, e := range w.told {
				if f, ok := e.(supervision.Failed); ok {
					told = fmt.Sprint(f.Who, " ", f.Class)
				}
			}
			if (told != "") != c.evidence {
				t.Errorf("evidence %q, want some: %v", told, c.evidence)
			}
			if w.lives["a"] != 1 || w.lives["b"] != 1 {
				t.Errorf("actors were started again: %v", w.lives)
			}
		})
	}
}
