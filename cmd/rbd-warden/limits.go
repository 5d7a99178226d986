package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/config"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision/pace"
)

// limiter is the daemon's part in limits on bytes a second: it keeps those that were set by
// command, and has the workers share the daemon's and the pools' by what each makes of them.
//
// Invariant: what a command sets is noted for workers to come before any worker is told; and
// each round tells each worker everything, so that one that did not hear it hears it in the
// next.
type limiter struct {
	crew   []caller
	report func(ctx context.Context) report.Daemon
	note   func(func(*config.Config))
	wishes func() config.LimitWishes
	poke   chan struct{}

	rounds sync.Mutex // one round at a time
	told   [][]report.Limit
	parts  []map[string]float64
	at     time.Time
}

func newLimiter(d *warden) *limiter {
	l := &limiter{
		report: d.report, note: d.change, wishes: func() config.LimitWishes { return d.config().Limits },
		poke: make(chan struct{}, 1),
	}
	for _, w := range d.workers {
		l.crew = append(l.crew, w)
	}
	l.told, l.parts = make([][]report.Limit, len(l.crew)), make([]map[string]float64, len(l.crew))
	return l
}

// How often the workers' parts are settled anew, while there is any limit, and how often
// they are asked whether there is one. (A command does not wait for that.)
const (
	shareInterval = time.Second
	limitInterval = 15 * time.Second
)

// Run settles the workers' parts until ctx ends.
func (l *limiter) Run(ctx context.Context) {
	for {
		limited, missing := l.round(ctx)
		pause := limitInterval
		if limited || missing != nil && len(l.wishes()) > 0 {
			pause = shareInterval
		}
		select {
		case <-ctx.Done():
			return
		case <-l.poke:
		case <-time.After(pause):
		}
	}
}

// round tells all workers what counts, hears what they make of it, and decides upon their
// parts for the next. missing are the workers that did not answer.
func (l *limiter) round(ctx context.Context) (limited bool, missing []int) {
	l.rounds.Lock()
	defer l.rounds.Unlock()
	ctx, cancel := context.WithTimeout(ctx, tellPatience)
	defer cancel()
	wishes, told := l.wishes(), make([][]report.Limit, len(l.crew))
	failed := make([]bool, len(l.crew))
	var all sync.WaitGroup
	for i, w := range l.crew {
		all.Go(func() {
			var err error
			if told[i], err = tellLimits(ctx, w, limitsState{Wishes: wishes, Parts: l.parts[i]}); err != nil {
				failed[i] = true
			}
		})
	}
	all.Wait()
	for i := range l.crew {
		limited = limited || len(told[i]) > 0
		if failed[i] {
			missing = append(missing, i)
		}
	}
	now := time.Now()
	if !l.at.IsZero() {
		l.parts = shareLimits(l.told, told, now.Sub(l.at))
	}
	l.told, l.at = told, now
	return limited, missing
}

func tellLimits(ctx context.Context, w caller, s limitsState) ([]report.Limit, error) {
	state, err := json.Marshal(s)
	if err != nil {
		return nil, err
	}
	reply, err := w.Call(ctx, &controlv1.CallRequest{Command: limitsCommand, Arguments: map[string]string{"state": string(state)}})
	switch {
	case err != nil:
		return nil, err
	case reply.GetCode() != 0:
		return nil, errors.New(reply.GetText())
	}
	var told []report.Limit
	return told, json.Unmarshal(reply.GetJson(), &told)
}

// shareLimits decides upon each worker's parts of the limits that workers share, from what
// each told before and now.
func shareLimits(before, now [][]report.Limit, passed time.Duration) []map[string]float64 {
	parts := make([]map[string]float64, len(now))
	demands := map[string][]pace.Demand{} // by limit and worker
	for i := range now {
		parts[i] = map[string]float64{}
		for _, is := range now[i] {
			if is.GlobalID != "" || is.BytesPerSecond == 0 {
				continue
			}
			name := limitName(config.LimitKey{Pool: is.Pool}, config.LimitKind(is.Kind))
			if demands[name] == nil {
				demands[name] = make([]pace.Demand, len(now))
			}
			var was report.Limit
			if k := slices.IndexFunc(before[i], is.SameAs); k >= 0 {
				was = before[i][k]
			}
			d := pace.Demand{Hungry: is.Waiting > 0 || is.Waited != was.Waited}
			if is.Bytes > was.Bytes {
				d.Use = float64(is.Bytes-was.Bytes) / passed.Seconds() / float64(is.BytesPerSecond)
			}
			demands[name][i] = d
		}
	}
	for name, all := range demands {
		for i, part := range pace.Share(all) {
			parts[i][name] = part
		}
	}
	return parts
}

// Do does a command about limits.
func (l *limiter) Do(ctx context.Context, r *controlv1.LimitRequest) *controlv1.LimitReply {
	refuse := func(code syscall.Errno, text string) *controlv1.LimitReply {
		return &controlv1.LimitReply{Code: int32(code), Text: text}
	}
	d, key := l.report(ctx), config.LimitKey{}
	if t := r.GetTarget(); t.GetPool() != "" {
		found, refusal := resolve(d, t)
		if refusal != nil {
			return refuse(syscall.Errno(refusal.GetCode()), refusal.GetText()+when(t.GetImage() != "", "; a limit by command is for the daemon that runs the image"))
		}
		if key.Pool = t.GetPool(); t.GetImage() != "" {
			key.Namespace, key.GlobalID = t.GetNamespace(), found[0].image.GlobalID
		} else if t.GetNamespace() != "" {
			return refuse(syscall.EINVAL, "a limit is for a pool with all its namespaces, or for an image")
		}
	}
	wanted := map[config.LimitKind]uint64{}
	if r.Replay != nil {
		wanted[config.ReplayLimit] = r.GetReplay()
	}
	if r.Sync != nil {
		wanted[config.SyncLimit] = r.GetSync()
	}
	words := report.Bounded(report.OneLine(r.GetWords()), maxWords)
	if words == "" {
		words = "command"
	}
	switch r.GetVerb() {
	case controlv1.LimitVerb_LIMIT_VERB_SHOW:
	case controlv1.LimitVerb_LIMIT_VERB_SET:
		if len(wanted) == 0 {
			return refuse(syscall.EINVAL, "neither --replay nor --sync says how much")
		}
		l.note(func(c *config.Config) {
			for _, k := range config.LimitKinds {
				if rate, ok := wanted[k]; ok {
					c.Limits = c.Limits.With(config.LimitWish{LimitKey: key, Kind: k, Rate: rate, Words: words})
				}
			}
		})
	case controlv1.LimitVerb_LIMIT_VERB_CLEAR:
		l.note(func(c *config.Config) {
			if r.GetAll() {
				c.Limits = nil
			}
			for _, k := range config.LimitKinds {
				c.Limits = c.Limits.Without(key, k)
			}
		})
	default:
		return refuse(syscall.EINVAL, fmt.Sprintf("there is no such command: %v", r.GetVerb()))
	}
	_, missing := l.round(ctx)
	select {
	case l.poke <- struct{}{}:
	default:
	}
	reply := &controlv1.LimitReply{Text: missingText(missing)}
	l.rounds.Lock()
	all := mergeLimits(d, l.told)
	l.rounds.Unlock()
	var err error
	if reply.LimitsJson, err = json.Marshal(all); err != nil {
		return refuse(syscall.EIO, err.Error())
	}
	return reply
}

func missingText(missing []int) string {
	if len(missing) == 0 {
		return ""
	}
	return fmt.Sprintf("%s %s could not be told yet, and will be within seconds", plural(len(missing), "worker"), strings.Trim(fmt.Sprint(missing), "[]"))
}

// mergeLimits makes one list of the workers', each limit once, with images' names.
func mergeLimits(d report.Daemon, told [][]report.Limit) []report.Limit {
	all := []report.Limit{}
	for _, some := range told {
		for _, is := range some {
			k := slices.IndexFunc(all, is.SameAs)
			if k < 0 {
				is.Name = imageName(d, is)
				all = append(all, is)
				continue
			}
			all[k].Bytes += is.Bytes
			all[k].Waited += is.Waited
			all[k].Waiting += is.Waiting
			all[k].Part += is.Part
		}
	}
	slices.SortStableFunc(all, compareLimits)
	return all
}

// imageName is the name of the image that a limit is for.
func imageName(d report.Daemon, l report.Limit) string {
	for _, w := range d.Workers {
		for _, p := range w.Pools {
			for _, i := range p.Images {
				if l.GlobalID != "" && i.GlobalID == l.GlobalID && i.Pool == l.Pool && i.Namespace == l.Namespace {
					return i.Name
				}
			}
		}
	}
	return ""
}
