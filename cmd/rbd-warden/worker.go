package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/config"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
	"github.com/rbdwarden/rbdwarden/supervision/worker"
)

// seams are what mirror has to do with the process that it runs in.
type seams struct {
	Index    int // of this worker, from 0
	Restarts int // workers of this index before this one
	// MemoryLimit is the limit of this worker's memory in bytes; 0: none.
	MemoryLimit int64
	// LastCause is what the one before died of; nil for the first.
	LastCause *report.Cause
	// Ready tells the daemon that the worker does its work. Call it once.
	Ready func()
	// Serve installs what the daemon can ask of the worker, in particular the
	// report and the commands of the command line.
	Serve func(worker.Hooks)
	// Tell tells the daemon what images did.
	Tell func(*controlv1.Traces)
	// Book is what became of images and pools in the workers before this one, and of those
	// workers. Ended tells the daemon of what ends in this one.
	Book  supervision.Book
	Ended func(supervision.End)
	// Ask asks the daemon for something that only it can tell or do.
	Ask func(ctx context.Context, ask *controlv1.Ask) (*controlv1.Told, error)
	// Deadline is when a worker that was asked to stop is killed.
	Deadline func() time.Time
}

// work is what a worker does. Tests of the processes around it do something simpler.
var work = mirror

// runWorker is a worker process: it does mirror until the daemon says stop, and
// returns the exit code.
func runWorker(ctx context.Context) int {
	w, err := worker.Attach()
	if err != nil {
		fmt.Fprintln(os.Stderr, "rbd-warden worker:", err)
		return worker.ExitPermanent
	}
	var cfg config.Config
	if err := json.Unmarshal(w.Config(), &cfg); err != nil {
		// Not %v: the message could quote the configuration, with its secrets.
		return w.End(errors.New("the daemon's configuration cannot be decoded"), classOf)
	}
	log, out, err := openLog(cfg.Process, w.LogFile())
	log = log.With().Int("worker", w.Index()).Int("pid", os.Getpid()).Logger()
	if err != nil {
		log.Warn().Err(err).Msg("cannot open log file")
	}
	reopen := func() {
		if err := out.Reopen(); err != nil {
			log.Warn().Err(err).Msg("cannot open log file again")
		}
	}
	serve := func(h worker.Hooks) {
		h.ReopenLog = reopen
		w.Serve(h)
	}
	serve(worker.Hooks{})
	boundMemory(w.MemoryLimit(), log)

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go watchSignals(w, reopen)
	go func() {
		<-w.Stopping()
		log.Info().Msg("stopping")
		cancel()
	}()
	err = work(ctx, cfg, log, seams{
		Index: w.Index(), Restarts: w.Restarts(), MemoryLimit: w.MemoryLimit(), LastCause: w.LastCause(),
		Ready: w.Ready, Serve: serve, Tell: w.Tell, Deadline: w.Deadline,
		Book: w.Book(), Ended: w.Ended, Ask: w.Ask,
	})
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		err = nil
	}
	if err != nil {
		log.Error().Err(err).Str("class", classOf(err)).Msg("worker fails")
	} else {
		log.Info().Msg("worker stopped")
	}
	return w.End(err, classOf)
}

// watchSignals lets a signal that was meant for the daemon, but sent to all processes
// of that name, have the same effect here.
func watchSignals(w *worker.Worker, reopen func()) {
	ch := make(chan os.Signal, 4)
	signal.Notify(ch, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
	for s := range ch {
		if s == syscall.SIGHUP {
			reopen()
		} else {
			w.Stop()
		}
	}
}
