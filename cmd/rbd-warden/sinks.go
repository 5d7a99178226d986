package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/rs/zerolog"

	cephmirror "github.com/rbdwarden/rbdwarden/ceph/mirror"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/report"
)

// statusSink is a pool.StatusSink over a running status writer.
type statusSink struct {
	writer *mirrorpool.StatusWriter
	stop   context.CancelFunc
	ended  chan struct{}
}

func newStatusSink(io rados.IOContext, uuid string, log zerolog.Logger) *statusSink {
	ctx, stop := context.WithCancel(context.Background())
	s := &statusSink{
		writer: mirrorpool.NewStatusWriter(mirrorpool.StatusConfig{IO: io, MirrorUUID: uuid}),
		stop:   stop, ended: make(chan struct{}),
	}
	go func() {
		defer close(s.ended)
		if err := s.writer.Run(ctx); err != nil {
			log.Error().Err(err).Msg("statuses are not written any more")
		}
	}()
	return s
}

var statusStates = map[string]cephmirror.StatusState{
	"unknown": cephmirror.StatusUnknown, "error": cephmirror.StatusError, "syncing": cephmirror.StatusSyncing,
	"starting_replay": cephmirror.StatusStartingReplay, "replaying": cephmirror.StatusReplaying,
	"stopping_replay": cephmirror.StatusStoppingReplay, "stopped": cephmirror.StatusStopped,
}

// Set notes an image's status.
func (s *statusSink) Set(globalID string, image report.Image) {
	s.writer.Set(globalID, statusStates[image.State], image.Description)
}

// Remove deletes the status of an image that is not mirrored any more.
func (s *statusSink) Remove(globalID string) { s.writer.Remove(globalID) }

// Forget leaves the last status as it is.
func (s *statusSink) Forget(globalID string) { s.writer.Forget(globalID) }

// Close writes what is pending and gives up the watch.
func (s *statusSink) Close(ctx context.Context) {
	s.stop()
	select {
	case <-s.ended:
	case <-ctx.Done():
	}
}

// mirroringHandler tells of changed images.
type mirroringHandler struct {
	changed func(globalID string)
	lost    chan struct{}
}

func (h mirroringHandler) ModeUpdated(cephmirror.Mode)             { h.changed("") }
func (h mirroringHandler) ImageUpdated(ev cephmirror.ImageUpdated) { h.changed(ev.GlobalID) }
func (h mirroringHandler) Unreadable(error)                        { h.changed("") }
func (h mirroringHandler) WatchLost(error) {
	h.changed("")
	close(h.lost)
}

const (
	watchCloseTimeout = 3 * time.Second
	rewatchPause      = 2 * time.Second
)

// watchMirroring watches rbd_mirroring, and again when the watch was lost, until stop.
func watchMirroring(ctx context.Context, io rados.IOContext, changed func(globalID string)) (stop func(), err error) {
	h := mirroringHandler{changed, make(chan struct{})}
	watch, err := mirrorpool.Watch(ctx, io, h)
	if err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-run.Done():
			case <-h.lost:
			}
			closing, done := context.WithTimeout(context.WithoutCancel(run), watchCloseTimeout)
			_ = watch.Close(closing) // a lost one has nothing to close
			done()
			if run.Err() != nil {
				return
			}
			h = mirroringHandler{changed, make(chan struct{})}
			for watch, err = mirrorpool.Watch(run, io, h); err != nil; watch, err = mirrorpool.Watch(run, io, h) {
				select {
				case <-run.Done():
					return
				case <-time.After(rewatchPause):
				}
			}
			changed("")
		}
	}()
	return func() { cancel(); <-ended }, nil
}

// actorLogger is where the actor library writes its own lines.
func actorLogger(log zerolog.Logger) func(*actor.ActorSystem) *slog.Logger {
	return func(*actor.ActorSystem) *slog.Logger {
		return slog.New(slogHandler{log.With().Str("from", "protoactor").Logger()})
	}
}

// slogHandler writes slog's records with zerolog. The library's message key is kept
// apart from zerolog's.
type slogHandler struct{ log zerolog.Logger }

func (h slogHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

func (h slogHandler) Handle(_ context.Context, r slog.Record) error {
	e := h.log.Warn()
	if r.Level >= slog.LevelError {
		e = h.log.Error()
	}
	r.Attrs(func(a slog.Attr) bool {
		e = e.Str("actor_"+a.Key, fmt.Sprint(a.Value.Any()))
		return true
	})
	e.Msg(r.Message)
	return nil
}

func (h slogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := h.log.With()
	for _, a := range attrs {
		c = c.Str("actor_"+a.Key, fmt.Sprint(a.Value.Any()))
	}
	return slogHandler{c.Logger()}
}

func (h slogHandler) WithGroup(string) slog.Handler { return h }
