package main

import (
	"context"
	"sync"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
)

// nameBook has the names of images as workers last told them. A new worker, or one that takes
// an image over, does not know its name until it has looked at it; operators do, and name
// the image by it just then.
type nameBook struct {
	mu    sync.Mutex
	known map[imageID]string
}

// Bounds of what is known by name, and how often it is asked for when nobody asks for
// reports.
const (
	maxNames      = 1 << 16 // about 200 bytes each
	namesInterval = 15 * time.Second
)

// Fill remembers the names that a report has, and adds those that it lacks.
func (n *nameBook) Fill(d *report.Daemon) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.known == nil || len(n.known) > maxNames {
		n.known = map[imageID]string{} // what is still there is told again
	}
	each := func(do func(id imageID, i *report.Image)) {
		for w := range d.Workers {
			for p := range d.Workers[w].Pools {
				images := d.Workers[w].Pools[p].Images
				for i := range images {
					do(imageID{images[i].Pool, images[i].Namespace, images[i].GlobalID}, &images[i])
				}
			}
		}
	}
	each(func(id imageID, i *report.Image) {
		if i.Name != "" {
			n.known[id] = i.Name
		}
	})
	each(func(id imageID, i *report.Image) {
		if i.Name == "" {
			i.Name = n.known[id]
		}
	})
}

// keepNames asks for reports now and then, until ctx ends.
func (d *warden) keepNames(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(namesInterval):
			d.report(ctx)
		}
	}
}
