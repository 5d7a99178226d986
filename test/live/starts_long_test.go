//go:build live && long

package live

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// TestAHundredStarts: three daemons are started at once a hundred times, and end in order or by kill -9. One leads, each
// image has one owner, and no OSD has seen it otherwise: neither the image map nor an image was written by two.
func TestAHundredStarts(t *testing.T) {
	const rounds = 10
	for part := range 10 {
		t.Run(fmt.Sprintf("part%d", part), func(t *testing.T) {
			s := newTeam(t, harness.OwnPair(t), teamOptions{
				images: 6, size: 1 << 20, pause: 200 * time.Millisecond, path: harness.Ours(t), idle: true,
				flags: []string{"--rbd-warden-workers", "1"},
			})
			var longest, apart time.Duration
			for round := range rounds {
				began := time.Now()
				for _, m := range s.members {
					s.start(m)
				}
				apart = max(apart, time.Since(began))
				harness.Eventually(t, harness.Patience, s.oneEach)
				longest = max(longest, time.Since(began))
				for _, m := range s.members {
					if round%2 == 0 {
						m.daemon.Kill()
					} else {
						m.daemon.Stop(t, stopTime)
					}
				}
			}
			leaders := s.witness.Leaders(t, s.pool)
			t.Logf("%d starts of three daemons within %v: all images were replayed after %v at most; %d terms of leaders who wrote",
				rounds, apart, longest, len(leaders))
			s.start(s.members[0])
			harness.Eventually(t, harness.Patience, s.oneEach)
			s.finish()
		})
	}
}

// oneEach says why not one of the daemons that run leads, and each image is replayed by one of them.
func (s *team) oneEach() string {
	leaders, runs := 0, map[string]int{}
	for _, m := range s.running() {
		ctx, cancel := context.WithTimeout(s.Context(), 5*time.Second)
		d, err := m.daemon.Ask(ctx, s.pair.Secondary)
		cancel()
		if err != nil {
			return err.Error()
		}
		for _, w := range d.Workers {
			for _, p := range w.Pools {
				if p.Leader {
					leaders++
				}
			}
			for _, image := range replayed(w) {
				runs[image.Name]++
			}
		}
	}
	if leaders != 1 {
		return fmt.Sprintf("%d lead", leaders)
	}
	for _, g := range s.load.Guests {
		if runs[g.Name] != 1 {
			return fmt.Sprintf("%s is replayed by %d", g.Spec(), runs[g.Name])
		}
	}
	return ""
}

// replayed lists the images that a worker replays.
func replayed(w report.Worker) (images []report.Image) {
	for _, image := range imagesOf(w) {
		if image.State == "replaying" {
			images = append(images, image)
		}
	}
	return images
}
