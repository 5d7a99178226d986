package pool

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/report"
)

// deletions is what a deleter tells of its work: the copies in the trash as it saw them last.
type deletions struct {
	mu     sync.Mutex
	copies map[string]report.Deletion
}

func newDeletions() *deletions { return &deletions{copies: map[string]report.Deletion{}} }

// listed says what is in the trash now and which of it is being deleted. What became of earlier attempts is kept.
func (d *deletions) listed(copies map[string]rbd.TrashSpec, due []string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	now := make(map[string]report.Deletion, len(copies))
	for id, spec := range copies {
		entry, known := d.copies[id]
		entry.ImageID, entry.Running = id, slices.Contains(due, id)
		if !known || entry.Retries == 0 {
			entry.Due = spec.DefermentEnds
		}
		now[id] = entry
	}
	d.copies = now
}

// failed says that an attempt failed, and when the next one is.
func (d *deletions) failed(id string, err error, again time.Time) {
	d.mu.Lock()
	defer d.mu.Unlock()
	entry := d.copies[id]
	entry.ImageID, entry.Running, entry.Due = id, false, again
	entry.Retries++
	entry.Error, entry.Errno = err.Error(), int(errnoOf(err))
	d.copies[id] = entry
}

func (d *deletions) done(id string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.copies, id)
}

func (d *deletions) list() []report.Deletion {
	d.mu.Lock()
	defer d.mu.Unlock()
	var all []report.Deletion
	for _, entry := range d.copies {
		all = append(all, entry)
	}
	slices.SortFunc(all, func(a, b report.Deletion) int {
		if c := a.Due.Compare(b.Due); c != 0 {
			return c
		}
		return strings.Compare(a.ImageID, b.ImageID)
	})
	return all
}

// errnoOf is the error number for what kept an image from being deleted; upstream's for an image with clones is EBUSY.
func errnoOf(err error) syscall.Errno {
	var (
		children *image.ChildrenError
		errno    syscall.Errno
	)
	switch {
	case errors.As(err, &children):
		return syscall.EBUSY
	case errors.As(err, &errno):
		return errno
	}
	return syscall.EIO
}
