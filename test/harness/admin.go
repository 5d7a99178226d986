package harness

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/rbdwarden/rbdwarden/lab"
)

// Admin gives words to the daemon's admin socket with "ceph --admin-daemon", as an operator would, and answers what it
// printed and its exit status.
func (d *Daemon) Admin(t testing.TB, c *lab.Cluster, words ...string) (string, int) {
	t.Helper()
	out, err := Try(c, "ceph", append([]string{"--admin-daemon", d.Socket}, words...)...)
	var failed *lab.CommandError
	switch {
	case errors.As(err, &failed):
		return out, failed.ExitCode()
	case err != nil:
		t.Fatal(err)
	}
	return out, 0
}

// AdminJSON gives a command without arguments to the admin socket, without "ceph", which takes a second to start, and
// decodes the answer.
func (d *Daemon) AdminJSON(t testing.TB, into any, command string) {
	t.Helper()
	out, err := lab.Admin(t.Context(), d.Socket, map[string]any{"prefix": command})
	if err == nil {
		err = json.Unmarshal(out, into)
	}
	if err != nil {
		t.Fatalf("%s: %v in %s", command, err, out)
	}
}

// AdminDo is AdminJSON for what the daemon does in silence, as upstream's does.
func (d *Daemon) AdminDo(t testing.TB, command string) {
	t.Helper()
	if out, err := lab.Admin(t.Context(), d.Socket, map[string]any{"prefix": command}); err != nil || len(out) > 0 {
		t.Fatalf("%s: %q, %v", command, out, err)
	}
}
