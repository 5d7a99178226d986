package main

import (
	"os"
	"strings"
	"testing"

	"github.com/rbdwarden/rbdwarden/config"
)

// The operators' guide lists every option of our own with its default, and every
// command.
func TestOperationsGuideIsComplete(t *testing.T) {
	data, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	guide := string(data)
	for _, o := range config.Table() {
		if !o.Own() {
			continue
		}
		short := strings.TrimPrefix(o.Name, "rbd_warden")
		found := false
		for line := range strings.Lines(guide) {
			if strings.HasPrefix(line, "| ") && strings.Contains(line, short+"`") && strings.Contains(line, o.Default) {
				found = true
			}
		}
		if !found {
			t.Errorf("no row for %s with its default %q", o.Name, o.Default)
		}
	}
	for _, c := range newRootCommand([]string{"rbd-warden"}).Commands() {
		switch c.Name() {
		case "lab", "demo", "help", "completion", "version": // not for operation
			continue
		}
		if !strings.Contains(guide, "rbd-warden "+c.Name()) {
			t.Errorf("the guide does not mention %s", c.CommandPath())
		}
	}
}
