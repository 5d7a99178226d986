package random

import (
	"fmt"
	"strings"
	"time"

	"github.com/rbdwarden/rbdwarden/test/harness"
)

// injuries counts damaged journals: those that were, and those whose mirror came to see it.
type injuries struct{ done, seen int }

func (i injuries) String() string {
	return fmt.Sprintf("%d journals were damaged, which %d mirrors met with", i.done, i.seen)
}

// injure asks a family to damage a journal when it next begins something.
func (f *Family) injure(long time.Duration) {
	select {
	case f.injuries <- long:
	default: // it is about to already
	}
}

// suffer damages the journal of an image ahead of its mirror, and repairs it after a while. The guest has the image open
// all the while and nothing else is done to it: librbd itself refuses to open an image with such a journal.
func (f *Family) suffer(long time.Duration) {
	for _, d := range f.Disks {
		if d.Trashed || !d.Mirrored {
			continue
		}
		w := f.writer(d, uint64(long))
		seen, err := f.At.look(d.Place, d.Name)
		if err != nil {
			f.t.Fatalf("look at %s before its journal is damaged: %v", d, err)
		}
		var injury *harness.Injury
		for range 8 {
			w.Burst(24)
			if injury, err = harness.DamageJournal(f.At.ioctx[d.Place], seen.ID); err == nil {
				break
			}
		}
		if err != nil {
			f.t.log.Printf(f.t.who, "journal of %s: %v", d, err)
			continue
		}
		f.t.log.Printf(f.t.who, "journal of %s is damaged: %s at %d, for %v", d, injury.Object, injury.Offset, long)
		w.Burst(12)
		time.Sleep(long)
		status := f.Other.says(d, "up+error", "")
		if status == "" {
			status = f.Other.says(d, "up+error", "?") // what it says instead of that
		}
		if err := injury.Repair(); err != nil {
			f.t.Fatal(err)
		}
		f.t.log.Printf(f.t.who, "journal of %s is repaired: %s", d, status)
		f.run.mu.Lock()
		f.run.injured.done++
		if strings.Contains(status, injury.Object) {
			f.run.injured.seen++
		}
		f.run.mu.Unlock()
		return
	}
}
