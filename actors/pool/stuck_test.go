package pool

import (
	"strings"
	"testing"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/messages"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// hang makes an effect of an image hang from now on, until the result is called.
func (w *world) hang(effect string) (release func()) {
	ch := make(chan struct{})
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.hangs == nil {
		w.hangs = map[string]chan struct{}{}
	}
	w.hangs[effect] = ch
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.hangs, effect)
		close(ch)
	}
}

// leftBehind are the pieces of evidence of that kind; the caller holds mu.
func (w *world) leftBehind() (list []supervision.LeftBehind) {
	for _, e := range w.told {
		if l, ok := e.(supervision.LeftBehind); ok {
			list = append(list, l)
		}
	}
	return list
}

// TestAWriterThatDoesNotEnd: an effect that may write, and does not even end when it is
// cancelled, is told of; nobody in this process runs the image again, nor gives up its lock,
// until it has ended; other images never notice.
func TestAWriterThatDoesNotEnd(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.until("both replay", func() bool { return w.state("a") == "replaying" && w.state("b") == "replaying" })
	release := w.hang("a core.StartTailing")
	w.system.Root.Send(w.pid, messages.ToImageNamed{GlobalID: "a", Message: messages.RestartImage{}})
	w.until("the stall shows", func() bool {
		return w.status["a"].StalledSeconds > 0 && strings.Contains(w.status["a"].Description, "StartTailing")
	})
	w.until("a new actor waits for the writer", func() bool {
		return w.lives["a"] > 1 && strings.Contains(w.status["a"].Description, "may still write") && w.status["a"].State == "error"
	})
	w.mu.Lock()
	if l := w.leftBehind(); len(l) != 1 || !l[0].Writes || l[0].What != "StartTailing" {
		t.Errorf("told %+v", w.told)
	}
	if w.open["a"] != 1 {
		t.Errorf("%d hold a's lock beside a writer that has not ended", w.open["a"])
	}
	if c := w.status["a"].LastCause; c == nil || c.Why != "abandoned" {
		t.Errorf("last cause %v", c)
	}
	closed := w.closed["a"]
	w.mu.Unlock()
	release()
	w.until("a replays again", func() bool { return w.state("a") == "replaying" && w.open["a"] == 1 && w.closed["a"] == closed+1 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lives["b"] != 1 || w.state("b") != "replaying" || w.status["b"].Restarts != 0 {
		t.Errorf("b: %d lives, %+v", w.lives["b"], w.status["b"])
	}
}

// TestAReadThatDoesNotEnd: an effect that only reads holds nothing but its own slot: the
// image gives up its lock without waiting for it, and runs again.
func TestAReadThatDoesNotEnd(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.until("both replay", func() bool { return w.state("a") == "replaying" && w.state("b") == "replaying" })
	release := w.hang("a core.ReadEntries")
	defer release()
	w.system.Root.Send(w.pid, messages.ToImageNamed{GlobalID: "a", Message: messages.RestartImage{}})
	w.until("a read hangs", func() bool { return w.hung == 1 && w.state("a") == "replaying" })
	w.mu.Lock()
	delete(w.hangs, "a core.ReadEntries") // the next one is well
	w.mu.Unlock()
	w.system.Root.Send(w.pid, messages.ToImageNamed{GlobalID: "a", Message: messages.RestartImage{}})
	w.until("a replays again", func() bool {
		return w.lives["a"] == 2 && w.state("a") == "replaying" && w.open["a"] == 1 && w.closed["a"] == 2
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	if l := w.leftBehind(); len(l) != 1 || l[0].Writes {
		t.Errorf("told %+v", w.told)
	}
	if c := w.status["a"].LastCause; c == nil || c.Why != "stuck" || w.status["a"].Restarts != 1 || len(w.status["a"].History) != 1 {
		t.Errorf("a's record: %+v", w.status["a"])
	}
	if w.lives["b"] != 1 {
		t.Errorf("b was started %d times", w.lives["b"])
	}
}

// TestAPanicBesideAWriterThatDoesNotEnd: an actor that panics while an effect which may write
// cannot be cancelled keeps the image's lock, and no other actor of this process runs the
// image beside that effect (invariant 2). The panic and what was let go of are both on record
// and make one restart.
func TestAPanicBesideAWriterThatDoesNotEnd(t *testing.T) {
	w := newWorld(t, "a", "b")
	w.until("both replay", func() bool { return w.state("a") == "replaying" && w.state("b") == "replaying" })
	release := w.hang("a core.StartTailing")
	w.system.Root.Send(w.pid, messages.ToImageNamed{GlobalID: "a", Message: messages.RestartImage{}})
	w.until("the effect hangs", func() bool { return w.hung == 1 })
	w.mu.Lock()
	notify, closed := w.notify["a"], w.closed["a"]
	w.mu.Unlock()
	for range 3 {
		notify(core.Applied{}) // nobody asked for it: a programmer's error
	}
	w.until("a new actor waits for the writer", func() bool {
		return w.lives["a"] == 2 && strings.Contains(w.status["a"].Description, "may still write")
	})
	w.mu.Lock()
	if w.closed["a"] != closed || w.open["a"] != 1 {
		t.Errorf("the lock was given up beside a writer that has not ended: closed %d times, %d open", w.closed["a"], w.open["a"])
	}
	s := w.status["a"]
	if s.Restarts != 1 || len(s.History) != 2 || s.History[0].Why != report.WhyPanic || s.History[1].Why != report.WhyAbandoned {
		t.Errorf("a's record: %d restarts, %+v", s.Restarts, s.History)
	}
	w.mu.Unlock()
	release()
	w.until("a replays again", func() bool { return w.state("a") == "replaying" && w.open["a"] == 1 && w.closed["a"] == closed+1 })
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lives["b"] != 1 || w.status["b"].Restarts != 0 {
		t.Errorf("b: %d lives, %+v", w.lives["b"], w.status["b"])
	}
}
