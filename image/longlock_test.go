package image

import (
	"testing"
	"testing/synctest"
	"time"
)

// Who waits for the lock does not keep time from passing, comes in order, and alone.
func TestLongLock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l longLock
		var order []int
		done := make(chan struct{})
		l.Lock()
		for i := range 3 {
			go func() {
				l.Lock()
				defer l.Unlock()
				time.Sleep(time.Second) // nobody else enters meanwhile
				order = append(order, i)
				if len(order) == 3 {
					close(done)
				}
			}()
			synctest.Wait()
		}
		start := time.Now()
		l.Unlock()
		<-done
		if took := time.Since(start); took != 3*time.Second || order[0] != 0 || order[1] != 1 || order[2] != 2 {
			t.Errorf("order %v after %v", order, took)
		}
		l.Lock() // free again
		defer l.Unlock()
	})
}
