package identity

import (
	"os/exec"
	"testing"
	"time"
)

func TestKnownDead(t *testing.T) {
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	other, err := of(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if self.KnownDead(other.String()) {
		t.Error("a living process is called dead")
	}
	_ = child.Process.Kill()
	_ = child.Wait()
	if !self.KnownDead(other.String()) {
		t.Error("a dead process is not called dead")
	}

	reused := self
	reused.Start++
	if !self.KnownDead(reused.String()) {
		t.Error("a pid that was given out again hides a death")
	}
	for name, foreign := range map[string]Identity{
		"another boot":      {Boot: "b", PIDNS: self.PIDNS, PID: other.PID, Start: other.Start},
		"another namespace": {Boot: self.Boot, PIDNS: "pid:[1]", PID: other.PID, Start: other.Start},
		"no pid":            {Boot: self.Boot, PIDNS: self.PIDNS},
	} {
		if self.KnownDead(foreign.String()) {
			t.Errorf("%s: judged from here", name)
		}
	}
	for _, text := range []string{"", "rbd-warden", "rbd-warden boot=x", "someone else"} {
		if self.KnownDead(text) {
			t.Errorf("%q: called dead", text)
		}
	}
	if got, ok := Parse(self.String()); !ok || got != self {
		t.Errorf("Parse(%q) = %+v", self.String(), got)
	}
}

// TestAwaitDeath: the end of a process is told once, at once, and while it lives nothing is.
func TestAwaitDeath(t *testing.T) {
	self, err := Self()
	if err != nil {
		t.Fatal(err)
	}
	child := exec.Command("sleep", "60")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer child.Wait()         //nolint:errcheck // it was killed
	defer child.Process.Kill() //nolint:errcheck // it may have ended
	other, err := of(child.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	gone := make(chan struct{}, 10)
	tell := func() { gone <- struct{}{} }
	await := func(description string) func() {
		t.Helper()
		stop, waits := self.AwaitDeath(description, tell)
		if !waits {
			t.Skip("this kernel has no pidfd")
		}
		return stop
	}
	heard := func(within time.Duration) bool {
		select {
		case <-gone:
			return true
		case <-time.After(within):
			return false
		}
	}
	stopped := await(other.String())
	stopped()
	waiting := await(other.String())
	foreign := other
	foreign.Boot = "another"
	await(foreign.String())
	await("someone else")
	if heard(100 * time.Millisecond) {
		t.Fatal("a living process, or one that cannot be judged, is called dead")
	}
	_ = child.Process.Kill() // not waited for: it is a zombie
	if !heard(5 * time.Second) {
		t.Fatal("the death is not told")
	}
	if !self.KnownDead(other.String()) {
		t.Error("the death is told, and not known")
	}
	if heard(100 * time.Millisecond) {
		t.Error("the death is told twice, or to whom had stopped to wait")
	}
	waiting()
	_ = child.Wait()
	await(other.String())
	if !heard(5 * time.Second) {
		t.Error("a death from before is not told")
	}
	reused := self
	reused.Start++
	await(reused.String())
	if !heard(5 * time.Second) {
		t.Error("a pid that was given out again hides a death")
	}
}
