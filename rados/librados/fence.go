package librados

import (
	"sync"
	"time"
)

// fences remembers whom this connection has blocklisted a moment ago. The images of a
// dead client are taken over one by one, each with a fence before it; two hundred
// images need one entry, and one wait for the OSD map, not two hundred.
type fences struct {
	mu     sync.Mutex
	recent map[string]*fence
}

// fence is one blocklisted address. Its lock is held while the monitors are asked, so
// that others who want the same wait for the answer.
type fence struct {
	mu    sync.Mutex
	until time.Time // the entry need not be made again before
}

// fenceMemory is for how long an entry is taken to be there. It is short, because an
// operator may remove one ("ceph osd blocklist rm").
const fenceMemory = 15 * time.Second

func (f *fences) of(address string) *fence {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.recent == nil {
		f.recent = map[string]*fence{}
	}
	if f.recent[address] == nil {
		f.recent[address] = &fence{}
	}
	return f.recent[address]
}

// once makes the entry unless it was made a moment ago. expire is how long the entry
// itself lasts, 0 for the cluster's default (an hour).
func (f *fence) once(now func() time.Time, expire time.Duration, add func() error) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if now().Before(f.until) {
		return nil
	}
	if err := add(); err != nil {
		return err
	}
	remember := fenceMemory
	if expire > 0 {
		remember = min(remember, expire/2)
	}
	f.until = now().Add(remember)
	return nil
}
