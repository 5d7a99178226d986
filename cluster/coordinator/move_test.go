package coordinator

import (
	"context"
	"errors"
	"maps"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/placement"
)

// runner is who runs an image, nil if nobody does.
func (s *site) runner(id string) *worker {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.runs[id]
}

// An image that is moved by command stays where it was moved, however balance would like it,
// until its member is gone for good; then the pin has ended.
func TestAMovedImageStays(t *testing.T) {
	run(t, 12, func(s *site) {
		a, b, c := s.start(1, 0, 1), s.start(2, 0, 1), s.start(3, 0, 1)
		s.settledWithin(5*time.Second, true)
		leader := s.leaders()[0]
		to := a
		if leader == a {
			to = b
		}
		moved := []string{}
		for _, id := range s.images {
			if s.runner(id) != to && len(moved) < 6 {
				moved = append(moved, id)
			}
		}
		for _, id := range moved {
			was := s.runner(id)
			from, is, err := leader.Move(context.Background(), "", id, []string{to.group.ID()})
			if err != nil || from.ID != was.group.ID() || is.ID != to.group.ID() {
				t.Fatalf("%s: from %s to %s, %v", id, from.ID, is.ID, err)
			}
			if _, _, err := leader.Move(context.Background(), "", id, []string{to.group.ID()}); err != nil {
				t.Errorf("again: %v", err)
			}
		}
		time.Sleep(10 * time.Minute)
		for _, id := range moved {
			if s.runner(id) != to {
				t.Errorf("%s was moved to %s, and is with %v", id, to.name, s.runner(id).name)
			}
		}
		if n := s.counts(); n[to.name] != 6 || n[""] != 0 {
			t.Errorf("%v: six are pinned, which is more than a share; the others make room", n)
		}
		to.kill(false)
		s.settledWithin(10*time.Second, true)
		next := s.start(4, 0, 1)
		s.settledWithin(10*time.Minute, true)
		for _, id := range moved {
			if e := pinOf(s, id); e != "" {
				t.Errorf("%s is pinned to %s still, whose member is dead", id, e)
			}
		}
		_, _ = c, next
	})
}

// pinOf is what the map says of an image's pin.
func pinOf(s *site, id string) string {
	l := s.leaders()[0]
	return l.namespaces[""].view.Map().Images[id].Pin // Run's goroutine rests in fake time
}

// A pin ends by command, and then balance may have the image.
func TestAPinEnds(t *testing.T) {
	run(t, 6, func(s *site) {
		a, b := s.start(1, 0, 1), s.start(2, 0, 1)
		s.settledWithin(5*time.Second, true)
		l := s.leaders()[0]
		for _, id := range s.images {
			if _, _, err := l.Move(context.Background(), "", id, []string{a.group.ID()}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(10 * time.Minute)
		if n := s.counts(); n[a.name] != 6 {
			t.Fatalf("%v", n)
		}
		for _, id := range s.images {
			if from, is, err := l.Move(context.Background(), "", id, nil); err != nil || from.ID != is.ID {
				t.Fatal(from, is, err)
			}
		}
		s.settledWithin(10*time.Second, true)
		_ = b
	})
}

// With the policy none all images are the leader's, whatever a command says.
func TestNoMovesWithThePolicyNone(t *testing.T) {
	run(t, 4, func(s *site) {
		s.placement.Policy = placement.None
		l, other := s.start(1, 0, 1), s.start(2, 0, 1)
		s.settledWithin(10*time.Second, false)
		if s.leaders()[0] == other {
			l, other = other, l
		}
		before := s.movedSoFar()
		if _, _, err := l.Move(context.Background(), "", "image-000", []string{other.group.ID()}); !errors.Is(err, syscall.ENOTSUP) {
			t.Errorf("policy none: %v", err)
		}
		time.Sleep(time.Minute)
		if after := s.movedSoFar(); !maps.Equal(before, after) {
			t.Errorf("moves before %v, after %v", before, after)
		}
	})
}

// What cannot be moved is refused with its reason, and nothing changes.
func TestMovesThatAreRefused(t *testing.T) {
	run(t, 4, func(s *site) {
		a, b, c := s.start(1, 0, 1), s.start(2, 0, 1), s.start(3, 0, 1)
		s.settledWithin(5*time.Second, true)
		l := s.leaders()[0]
		other, third := a, c
		switch l {
		case a:
			other = b
		case c:
			third = b
		}
		third.Drain(true)
		time.Sleep(5 * time.Second)
		before := s.movedSoFar()
		for _, c := range []struct {
			at        *worker
			namespace string
			image     string
			to        string
			want      error
		}{
			{other, "", "image-000", l.group.ID(), ErrNotLeading},
			{l, "", "absent", other.group.ID(), syscall.ENOENT},
			{l, "nowhere", "image-000", other.group.ID(), syscall.ENOENT},
			{l, "", "image-000", "999999", syscall.ENOENT},
			{l, "", "image-000", third.group.ID(), syscall.EBUSY},
		} {
			if _, _, err := c.at.Move(context.Background(), c.namespace, c.image, []string{c.to}); !errors.Is(err, c.want) {
				t.Errorf("%+v: %v", c, err)
			}
		}
		for id, n := range s.movedSoFar() {
			if n != before[id] && s.runner(id) != l {
				t.Errorf("%s moved", id)
			}
		}
		// A member that is cut off decides nothing, and whoever asks it is not kept.
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		s.mu.Lock()
		s.cut[l.client] = true
		s.mu.Unlock()
		if _, _, err := l.Move(ctx, "", "image-000", []string{other.group.ID()}); err == nil {
			t.Error("a leader that cannot write has moved an image")
		}
	})
}
