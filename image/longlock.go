package image

import "sync"

// longLock is a lock that is held across operations on the cluster, so that others may
// wait for long. They wait on a channel, in the order in which they came: to
// testing/synctest that is waiting, whereas a goroutine at a sync.Mutex seems to be busy and
// keeps a simulation's time from passing.
type longLock struct {
	mu      sync.Mutex
	held    bool
	waiters []chan struct{}
}

// Lock waits for its turn.
func (l *longLock) Lock() {
	l.mu.Lock()
	if !l.held {
		l.held = true
		l.mu.Unlock()
		return
	}
	turn := make(chan struct{})
	l.waiters = append(l.waiters, turn)
	l.mu.Unlock()
	<-turn
}

// Unlock hands the lock to who has waited longest.
func (l *longLock) Unlock() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.waiters) == 0 {
		l.held = false
		return
	}
	close(l.waiters[0])
	l.waiters = l.waiters[1:]
}
