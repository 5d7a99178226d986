package replayer

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/image"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
)

// Absence is a peer that could not be reached since the daemon began.
type Absence struct {
	Here, There string // names of the sites
	Err         error
	Since       time.Time
	Attempts    int
	Next        time.Time // of the next one; zero: it is under way
}

// Alone reports the local images of a pool while there is no peer to mirror them from:
// nothing of theirs is opened or locked, only looked at. pool is its name with the
// namespace. An image that cannot be looked at says so itself.
func Alone(ctx context.Context, io rados.IOContext, pool string, gone Absence) ([]report.Image, error) {
	var images []report.Image
	err := mirrorpool.ListImages(ctx, io, func(id, globalID string) bool {
		images = append(images, report.Image{
			Pool: io.Pool().Name, Namespace: io.Namespace(), GlobalID: globalID, LocalID: id,
			EntriesBehind: -1, LagSeconds: -1, SyncPercent: -1, Since: gone.Since, NextStart: gone.Next,
		})
		return true
	})
	for n := range images {
		look(ctx, io, &images[n], pool, gone)
	}
	return images, err
}

func look(ctx context.Context, io rados.IOContext, r *report.Image, pool string, gone Absence) {
	said := account{
		image: pool + "/" + r.GlobalID, here: gone.Here, there: gone.There, since: gone.Since, attempts: gone.Attempts, next: gone.Next,
		trying: gone.Next.IsZero(),
		cause: core.StopCause{
			Reason: core.EffectFailed, Class: rados.Transient, Err: gone.Err,
			Text: fmt.Sprintf("unable to connect to remote cluster %s: %v", gone.There, gone.Err),
		},
	}
	name, err := image.Name(ctx, io, r.LocalID)
	if err == nil {
		r.Name, said.image = name, pool+"/"+name
	}
	role, err := roleOf(ctx, io, r.LocalID)
	switch {
	case errors.Is(err, syscall.ENOENT): // half made
	case err != nil:
		said.cause = core.StopCause{Reason: core.EffectFailed, Class: rados.Classify(err), Err: err, Text: fmt.Sprintf("error looking up the local image: %v", err)}
	case role.promotion() == core.Primary:
		said.cause = core.StopCause{Reason: core.LocalIsPrimary, Text: "local image is primary"}
	}
	r.State, r.Description = stoppedState(said.cause), said.String()
}
