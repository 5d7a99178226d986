package replayer_test

import (
	"strings"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/rados/mem"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// TestACopyThatHangsIsSeen has the first copy's reads of the primary's objects never answered. A copy tells how far it is
// every second, and that it is where it was is no progress: the watchdog says so.
func TestACopyThatHangsIsSeen(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 9, false)
		s.patience = supervision.Patience{Report: 5 * time.Second, Restart: time.Hour, Grace: time.Hour}
		s.write(0, "XX")
		released := make(chan struct{})
		fault := mem.FaultFunc(func(op mem.Op) mem.Verdict {
			if op.Kind == mem.Read && strings.HasPrefix(op.Object, "rbd_data.r") {
				return mem.Verdict{Until: released}
			}
			return mem.Verdict{}
		})
		s.fault.Store(&fault)
		w := s.start()
		for deadline := time.Now().Add(time.Minute); w.said().StalledSeconds == 0; time.Sleep(time.Second) {
			if time.Now().After(deadline) {
				t.Fatalf("nobody sees that the copy hangs: %+v", w.said())
			}
		}
		if got := w.said().State; got != "syncing" {
			t.Errorf("it stalls in %s", got)
		}
		close(released)
		s.fault.Store(nil)
		s.caughtUp(w)
		s.stop(w)
		s.equal()
	})
}
