package replayer_test

import (
	"fmt"
	"sync"
	"testing"

	"github.com/rbdwarden/rbdwarden/actors/replayer"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/supervision/memory"
)

// Many images with a burst each, and one budget that does not hold one read of any of
// them: all sync, replay and finish, operations whose outcome is further on in the
// journal than the budget reaches among it, and nothing is held in the end. Each image
// has nothing but what it overdraws in its turn.
func TestManyImagesShareATinyBudget(t *testing.T) {
	const images = 8
	for _, c := range []struct{ limit, reserve int64 }{{0, 0}, {32 << 10, 1 << 10}, {1 << 20, 8 << 10}} {
		t.Run(fmt.Sprintf("%d bytes, %d reserved", c.limit, c.reserve), func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := memory.NewBudget(c.limit)
				b.SetReserve(c.reserve)
				var all sync.WaitGroup
				for seed := range uint64(images) {
					s := emptyScene(t, seed, false)
					s.credit = func() replayer.Credit { return b.Client() }
					s.urgent = func() replayer.Credit { return b.UrgentClient() }
					s.makePrimary(t.Context())
					for range 30 {
						s.happen()
					}
					s.longOperation()
					w := s.start()
					all.Go(func() {
						s.caughtUp(w)
						s.stop(w)
						s.equal()
					})
				}
				all.Wait()
				st := b.State()
				if st.Used != 0 || st.Waiting != 0 {
					t.Errorf("%+v in the end", st)
				}
				// The reserves, one read that is overdrawn, and one that looks ahead for each image.
				if most := c.limit + images*c.reserve + (1+images)*(128<<10); st.Peak > most || st.Peak == 0 {
					t.Errorf("%d bytes were held, %d is the most", st.Peak, most)
				}
			})
		})
	}
}

// longOperation journals a snapshot whose outcome comes far behind it: the writes between
// wait for it here.
func (s *scene) longOperation() {
	s.op++
	s.append(wire.SnapCreate{Op: s.op, Name: fmt.Sprintf("snap-%d", s.op)})
	for range 20 {
		offset := s.rng.Uint64N(imageSize - 64<<10)
		data := make([]byte, 48<<10)
		fill(s.rng, data)
		s.append(wire.AioWrite{Offset: offset, Length: uint64(len(data)), Data: data})
		copy(s.model[offset:], data)
	}
	s.append(wire.OpFinish{Op: s.op})
}
