package main

import (
	"context"
	"math"
	"sync"
	"time"

	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	clusterv1 "github.com/rbdwarden/rbdwarden/proto/cluster/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

const (
	// entryCost is what replaying an entry takes beside its bytes, in bytes.
	entryCost = 4096
	// loadSmoothing is the time over which loads are smoothed.
	loadSmoothing = time.Minute
	// idleLoad is the load that is not worth telling, in bytes a second.
	idleLoad = 1024
	// leastLoad is by how much a worker must exceed the mean before images are exchanged for
	// their loads, in bytes a second: one core replays a hundred times as much.
	leastLoad = 1 << 20
	// oftenLoad is the least time between two measurements.
	oftenLoad = 5 * time.Second
)

// loadMeter measures what each image takes, from how much was replayed between two looks. It has
// no clock.
type loadMeter struct {
	images map[imageID]imageLoad
	looked time.Time
}

type imageLoad struct {
	done  float64 // counted by the newest look, in bytes
	rate  float64 // a second, smoothed
	rated bool
}

// look takes in what images have replayed since they were begun with.
func (m *loadMeter) look(now time.Time, pools []report.Pool) {
	past := now.Sub(m.looked).Seconds()
	if !m.looked.IsZero() && past < oftenLoad.Seconds() {
		return
	}
	next := make(map[imageID]imageLoad)
	for _, p := range pools {
		for _, i := range p.Images {
			id := imageID{i.Pool, i.Namespace, i.GlobalID}
			done := float64(i.Replayed.Bytes) + entryCost*float64(i.Replayed.Entries)
			was, known := m.images[id]
			is := imageLoad{done: done, rate: was.rate, rated: was.rated}
			if known {
				more := done - was.done
				if more < 0 { // its actor was started anew
					more = done
				}
				rate := more / past
				if keep := math.Exp(-past / loadSmoothing.Seconds()); was.rated {
					rate = keep*was.rate + (1-keep)*rate
				}
				is.rate, is.rated = rate, true
			}
			next[id] = is
		}
	}
	m.images, m.looked = next, now
}

// loads are those of a pool that are worth telling.
func (m *loadMeter) loads(pool string) coordinator.Loads {
	out := coordinator.Loads{}
	for id, l := range m.images {
		if id.pool != pool || l.rate < idleLoad {
			continue
		}
		if out[id.namespace] == nil {
			out[id.namespace] = map[string]float64{}
		}
		out[id.namespace][id.globalID] = l.rate
	}
	return out
}

// measuring is a loadMeter with its clock and its images.
type measuring struct {
	mu    sync.Mutex
	meter loadMeter
	pools func() ([]report.Pool, error)
}

// Loads measures what our images of a pool take now.
func (m *measuring) Loads(pool int64) (coordinator.Loads, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	pools, err := m.pools()
	if err != nil {
		return nil, err
	}
	m.meter.look(time.Now(), pools)
	for _, p := range pools {
		if p.ID == pool {
			return m.meter.loads(p.Name), nil
		}
	}
	return coordinator.Loads{}, nil
}

// loadsOf asks members, of whom this worker may be one, for their loads. Who does not answer
// is not in the result.
func (n *network) loadsOf(ctx context.Context, pool int64, members []string) map[string]coordinator.Loads {
	out := map[string]coordinator.Loads{}
	var mu sync.Mutex
	var all sync.WaitGroup
	for _, id := range members {
		all.Go(func() {
			var told *clusterv1.LoadAnswer
			if id == n.self {
				told = n.loadAnswer(pool)
			} else if a, err := n.question(ctx, id, &clusterv1.Question{What: &clusterv1.Question_Load{Load: &clusterv1.LoadQuestion{PoolId: pool}}}); err == nil {
				told = a.GetLoad()
			}
			if told == nil {
				return
			}
			l := coordinator.Loads{}
			for _, i := range told.GetImages() {
				if l[i.GetNamespace()] == nil {
					l[i.GetNamespace()] = map[string]float64{}
				}
				l[i.GetNamespace()][i.GetGlobalId()] = i.GetLoad()
			}
			mu.Lock()
			defer mu.Unlock()
			out[id] = l
		})
	}
	all.Wait()
	return out
}

// loadAnswer is what this worker says of its loads; nil if it cannot tell.
func (n *network) loadAnswer(pool int64) *clusterv1.LoadAnswer {
	n.mu.Lock()
	measure := n.measure
	n.mu.Unlock()
	if measure == nil {
		return nil
	}
	l, err := measure(pool)
	if err != nil {
		return nil
	}
	a := &clusterv1.LoadAnswer{}
	for namespace, images := range l {
		for id, load := range images {
			a.Images = append(a.Images, &clusterv1.ImageLoad{Namespace: namespace, GlobalId: id, Load: load})
		}
	}
	return a
}
