package identity

import (
	"os/exec"
	"testing"
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
