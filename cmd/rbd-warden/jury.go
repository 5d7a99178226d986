package main

import (
	"context"
	"errors"
	"os"
	"sync"
	"syscall"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/site"
	"github.com/rbdwarden/rbdwarden/config"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/librados"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/rhythm"
	"github.com/rbdwarden/rbdwarden/supervision"
	"github.com/rbdwarden/rbdwarden/supervision/process"
)

// jury hears the evidence that the parts of a worker give, and ends the worker if it points
// at the worker itself. What it decides by is supervision.Escalation.
type jury struct {
	// probe tries a new connection to the local cluster.
	probe func(ctx context.Context) error
	// overdue counts Ceph's operations that are under way beyond every timeout.
	overdue func() int
	// end ends the worker. It is called at most once.
	end func(why string)
	log zerolog.Logger

	mu    sync.Mutex
	heard []supervision.Evidence
	lost  int
	news  chan struct{}
}

const (
	// maxHeard bounds the evidence that waits to be weighed. More is lost: the same comes again.
	maxHeard = 10000
	// overdueInterval is how often overdue operations are counted.
	overdueInterval = 5 * time.Second
	// probePatience bounds a probe: it is for a cluster that answers.
	probePatience = 20 * time.Second
)

func newJury(probe func(context.Context) error, overdue func() int, end func(why string), log zerolog.Logger) *jury {
	return &jury{probe: probe, overdue: overdue, end: end, log: log, news: make(chan struct{}, 1)}
}

// Tell gives evidence. It does not block.
func (j *jury) Tell(e supervision.Evidence) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if len(j.heard) >= maxHeard {
		j.lost++
		return
	}
	j.heard = append(j.heard, e)
	select {
	case j.news <- struct{}{}:
	default:
	}
}

// Run decides, until ctx ends.
func (j *jury) Run(ctx context.Context) {
	escalation := supervision.NewEscalation(supervision.DefaultEscalation)
	ticker := rhythm.NewTicker(overdueInterval)
	defer ticker.Stop()
	for {
		var heard []supervision.Evidence
		select {
		case <-ctx.Done():
			return
		case <-j.news:
			heard = j.take()
		case now := <-ticker.C:
			ticker.Next()
			heard = []supervision.Evidence{supervision.Overdue{When: now, Calls: j.overdue()}}
		}
		for _, e := range heard {
			switch judgement := escalation.Weigh(e); {
			case judgement.Escalate:
				j.log.Error().Str("why", judgement.Why).Msg("this worker is at fault, not an image: it ends, for a new one to begin")
				j.end(judgement.Why)
			case judgement.Probe:
				j.log.Warn().Msg("several images fail in the same way and none works: trying a new connection to the local cluster")
				go j.try(ctx)
			}
		}
	}
}

func (j *jury) take() []supervision.Evidence {
	j.mu.Lock()
	defer j.mu.Unlock()
	heard := j.heard
	j.heard = nil
	if j.lost > 0 {
		j.log.Warn().Int("pieces", j.lost).Msg("evidence was lost: there was too much of it")
		j.lost = 0
	}
	return heard
}

// try makes a probe and tells what came of it.
func (j *jury) try(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	err := j.probe(ctx)
	p := supervision.Probed{When: time.Now(), Works: err == nil}
	if err != nil {
		p.Text = report.OneLine(err.Error())
		p.Own = errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) || errors.Is(err, syscall.ENOMEM)
	}
	j.log.Info().Bool("works", p.Works).AnErr("error", err).Msg("tried a new connection to the local cluster")
	j.Tell(p)
}

// probeCluster tries a new connection to the local cluster: not only its monitors have to
// answer, but the OSDs, for every mirrored pool.
func probeCluster(cfg config.Config) func(context.Context) error {
	return func(ctx context.Context) error {
		if err := spareDescriptors(); err != nil {
			return err // Ceph's library would say something else, or abort
		}
		c, _, err := connect(ctx, cfg, "", zerolog.Nop())
		if err != nil {
			return err
		}
		defer c.Close()
		pools, err := mirrorpool.FindPools(ctx, c)
		if err != nil {
			return err
		}
		for _, p := range pools {
			if p.Err != nil && rados.Classify(p.Err) == rados.Transient {
				return p.Err
			}
		}
		return nil
	}
}

// spareDescriptors tells whether this process may open as many files as a connection takes.
func spareDescriptors() (err error) {
	for range 32 {
		f, e := os.Open(os.DevNull)
		if e != nil {
			return e
		}
		defer f.Close()
	}
	return nil
}

// overdueCalls counts operations that librados does not give back although they, and every
// timeout that it has for them, are over.
func overdueCalls(o config.Warden) func() int {
	age := 2*max(o.OSDTimeout, o.MonTimeout, o.ConnectTimeout) + 30*time.Second
	return func() int { return librados.Overdue(time.Now().Add(-age)) }
}

// ended is why a worker ends itself, where that is no operating error.
type ended struct{ class, text string }

func (e *ended) Error() string { return e.text }

func escalated(why string) error { return &ended{process.ClassEscalated, why} }

// classOf is the class of a worker's end, for the daemon.
func classOf(err error) string {
	var (
		e *ended
		p *site.PanicError
	)
	switch {
	case errors.As(err, &e):
		return e.class
	case errors.As(err, &p):
		return process.ClassPanic
	}
	return rados.Classify(err).String()
}
