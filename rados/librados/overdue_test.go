package librados

import (
	"context"
	"errors"
	"testing"
	"time"
)

// TestOverdue: a call that librados does not give back is counted from when nobody waits for it
// any more, and until it has come back.
func TestOverdue(t *testing.T) {
	c := &Cluster{blocking: make(chan struct{}, 1), closing: make(chan struct{}), drained: make(chan struct{})}
	ctx, cancel := context.WithCancel(context.Background())
	began, back, left := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		_, err := call(ctx, c, func() (int, error) { close(began); <-back; return 0, nil })
		left <- err
	}()
	<-began
	count := func() int { return Overdue(time.Now().Add(time.Second)) }
	if n := count(); n != 0 {
		t.Errorf("%d are overdue while somebody waits", n)
	}
	before := time.Now()
	cancel()
	if err := <-left; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if n := count(); n != 1 || Overdue(before) != 0 {
		t.Errorf("%d are overdue, %d since before it was given up", n, Overdue(before))
	}
	close(back)
	for deadline := time.Now().Add(10 * time.Second); count() > 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("it has come back and is overdue still")
		}
	}
}
