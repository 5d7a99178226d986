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

// suffer damages the journal of an image ahead of its mirror, and repairs it once the mirror has met with that and so much
// time has passed. The guest has the image open all the while and nothing else is done to it: librbd itself refuses to
// open an image with such a journal.
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
		met, status := f.meet(d, injury, long)
		if err := injury.Repair(); err != nil {
			f.t.Fatal(err)
		}
		f.t.log.Printf(f.t.who, "journal of %s is repaired: %s", d, status)
		f.run.mu.Lock()
		f.run.injured.done++
		if met {
			f.run.injured.seen++
		}
		f.run.mu.Unlock()
		return
	}
	f.t.log.Printf(f.t.who, "no journal could be damaged")
}

// encounter is how long a mirror may need to come to the damage: its worker may be dead just then, or a cluster paused.
const encounter = 40 * time.Second

// meet waits for so long, and until the mirror of an image says that it has met with the damage, but not for ever: what
// it had read before is not damaged.
func (f *Family) meet(d *Disk, injury *harness.Injury, long time.Duration) (met bool, status string) {
	for began := time.Now(); time.Since(began) < long || !met && time.Since(began) < long+encounter; time.Sleep(500 * time.Millisecond) {
		status = f.Other.says(d, "up+error", "?") // so that it is told, whatever it is
		met = met || strings.Contains(status, injury.Object)
	}
	return met, status
}
