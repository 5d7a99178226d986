package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/messages"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// limitedWorker is a worker as far as limits go.
type limitedWorker struct {
	limits *limits
	deaf   bool
}

func (w *limitedWorker) Call(_ context.Context, r *controlv1.CallRequest) (*controlv1.CallReply, error) {
	if w.deaf {
		return nil, errors.New("it starts")
	}
	said, err := (&wiring{limits: w.limits}).callLimits(r.GetArguments()["state"])
	return &controlv1.CallReply{Json: said}, err
}

// limitedDaemon is a daemon with two workers, of which the first runs image vm, with its own
// part in limits.
type limitedDaemon struct {
	*limiter
	crew [2]*limitedWorker
	cfg  config.Config
}

func newLimitedDaemon(o config.Warden) *limitedDaemon {
	d := &limitedDaemon{}
	d.limiter = newLimiter(&warden{})
	for i := range d.crew {
		d.crew[i] = &limitedWorker{limits: newLimits(o, len(d.crew), nil)}
		d.limiter.crew = append(d.limiter.crew, d.crew[i])
	}
	d.told, d.parts = make([][]report.Limit, len(d.crew)), make([]map[string]float64, len(d.crew))
	d.note = func(how func(*config.Config)) { how(&d.cfg) }
	d.wishes = func() config.LimitWishes { return d.cfg.Limits }
	d.report = func(context.Context) report.Daemon {
		pool := report.Pool{Name: "rbd"}
		one := pool
		one.Images = []report.Image{{Pool: "rbd", GlobalID: "g", Name: "vm"}}
		return report.Daemon{Workers: []report.Worker{{Pools: []report.Pool{one}}, {Pools: []report.Pool{pool}}}}
	}
	return d
}

// ask gives a command and tells what came of it: a refusal, or the limits in force.
func (d *limitedDaemon) ask(t *testing.T, verb controlv1.LimitVerb, pool, image string, replay, sync int64) string {
	t.Helper()
	r := &controlv1.LimitRequest{Verb: verb, Words: "root"}
	if pool != "" {
		r.Target = &controlv1.Target{Pool: pool, Image: image}
	}
	for _, f := range []struct {
		rate int64
		into **uint64
	}{{replay, &r.Replay}, {sync, &r.Sync}} {
		if f.rate >= 0 {
			rate := uint64(f.rate)
			*f.into = &rate
		}
	}
	reply := d.Do(t.Context(), r)
	if reply.GetCode() != 0 {
		return fmt.Sprintf("%v: %s", syscall.Errno(reply.GetCode()), reply.GetText())
	}
	var limits []report.Limit
	if err := json.Unmarshal(reply.GetLimitsJson(), &limits); err != nil {
		t.Fatal(err)
	}
	said := []string{}
	for _, l := range limits {
		if math.Abs(l.Part-1) > 1e-9 && reply.GetText() == "" {
			t.Errorf("the workers have %v of %+v together", l.Part, l)
		}
		said = append(said, fmt.Sprintf("%s %s %d by %s", limitOf(l), l.Kind, l.BytesPerSecond, l.By))
	}
	if reply.GetText() != "" {
		said = append(said, reply.GetText())
	}
	return strings.Join(said, "; ")
}

// Limits are set, changed, lifted and cleared, each again and again with the same result;
// what cannot be is refused, and changes nothing.
func TestLimitCommands(t *testing.T) {
	const (
		show, set, reset = controlv1.LimitVerb_LIMIT_VERB_SHOW, controlv1.LimitVerb_LIMIT_VERB_SET, controlv1.LimitVerb_LIMIT_VERB_CLEAR
		option           = "daemon replay 1000 by option"
	)
	d := newLimitedDaemon(config.Warden{ReplayRate: 1000})
	paced := d.crew[0].limits.Join(messages.ImageKey{PoolKey: messages.PoolKey{Pool: "rbd"}, GlobalID: "g"})
	for _, c := range []struct {
		verb         controlv1.LimitVerb
		pool, image  string
		replay, sync int64
		want         string
		rate         int64 // of the image's replay in the first worker
	}{
		{show, "", "", -1, -1, option, 500},
		{set, "", "", -1, -1, "invalid argument: neither --replay nor --sync says how much", 500},
		{set, "other", "", 1, -1, "no such file or directory: pool other is not mirrored", 500},
		{set, "rbd", "vn", 1, -1, "no such file or directory: no image rbd/vn", 500},
		{set, "", "", 400, 7, "daemon replay 400 by root; daemon sync 7 by root", 200},
		{set, "", "", 400, 7, "daemon replay 400 by root; daemon sync 7 by root", 200},
		{set, "", "", 0, -1, "daemon replay 0 by root; daemon sync 7 by root", 0},
		{reset, "", "", -1, -1, option, 500},
		{reset, "", "", -1, -1, option, 500},
		{set, "rbd", "", 300, -1, option + "; pool rbd replay 300 by root", 150},
		{set, "rbd", "vm", 100, -1, option + "; pool rbd replay 300 by root; image rbd/vm replay 100 by root", 100},
		{set, "rbd", "g", 200, -1, option + "; pool rbd replay 300 by root; image rbd/vm replay 200 by root", 150},
		{reset, "rbd", "", -1, -1, option + "; image rbd/vm replay 200 by root", 200},
		{reset, "rbd", "vm", -1, -1, option, 500},
	} {
		got := d.ask(t, c.verb, c.pool, c.image, c.replay, c.sync)
		if got != c.want && !(strings.Contains(c.want, ": ") && strings.HasPrefix(got, c.want)) {
			t.Errorf("%+v: %s", c, got)
		}
		if rate := paced.Replay.Rate(); rate != c.rate {
			t.Errorf("%+v: the image has %d", c, rate)
		}
	}
	d.ask(t, set, "rbd", "vm", 1, 1)
	d.ask(t, set, "", "", 1, 1)
	if r := d.Do(t.Context(), &controlv1.LimitRequest{Verb: reset, All: true}); r.GetCode() != 0 || len(d.cfg.Limits) != 0 {
		t.Errorf("%v, %v", r, d.cfg.Limits)
	}
}

// A worker that cannot hear is named, and hears it in the next round; one that starts is
// started with it.
func TestALimitReachesEveryWorker(t *testing.T) {
	d := newLimitedDaemon(config.Warden{})
	d.crew[1].deaf = true
	got := d.ask(t, controlv1.LimitVerb_LIMIT_VERB_SET, "", "", 0, 5)
	if !strings.Contains(got, "worker 1 could not be told yet") {
		t.Error(got)
	}
	d.crew[1].deaf = false
	if _, missing := d.round(t.Context()); len(missing) > 0 || d.crew[1].limits.daemon.buckets[config.SyncLimit].Rate() == 0 {
		t.Errorf("not told: %v", missing)
	}
	if l := newLimits(config.Warden{SyncRate: 100}, 1, d.cfg.Limits); l.daemon.buckets[config.SyncLimit].Rate() != 5 {
		t.Errorf("a new worker has %+v", l.Report())
	}
}

// A worker with a lot to do gets what the other leaves, and gives it back when that wakes up.
func TestWorkersShareALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const rate = 1 << 20
		d := newLimitedDaemon(config.Warden{ReplayRate: rate})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		busy := func(ctx context.Context, worker int) {
			chain := d.crew[worker].limits.Join(messages.ImageKey{PoolKey: messages.PoolKey{Pool: "rbd"}, GlobalID: fmt.Sprint(worker)}).Replay
			for chain.Take(ctx, 16<<10) == nil {
			}
		}
		go d.Run(ctx)
		go busy(ctx, 0)
		use := func(worker int) float64 {
			return float64(d.crew[worker].limits.daemon.buckets[config.ReplayLimit].Use().Bytes)
		}
		within := func(what string, passed time.Duration, low, high [2]float64) {
			t.Helper()
			was := [2]float64{use(0), use(1)}
			time.Sleep(passed)
			for i := range was {
				if got := (use(i) - was[i]) / passed.Seconds() / rate; got < low[i] || got > high[i] {
					t.Errorf("%s: worker %d has %.2f of the limit", what, i, got)
				}
			}
		}
		time.Sleep(20 * time.Second)
		within("one is busy", 10*time.Second, [2]float64{0.8, 0}, [2]float64{0.9, 0})
		waking, sleep := context.WithCancel(ctx)
		go busy(waking, 1)
		time.Sleep(3 * time.Second)
		within("both are busy", 10*time.Second, [2]float64{0.45, 0.45}, [2]float64{0.55, 0.55})
		sleep()
		time.Sleep(3 * time.Second)
		within("one sleeps again", 10*time.Second, [2]float64{0.8, 0}, [2]float64{0.9, 0.01})
	})
}

// A pool's limits are its metadata's, an image's its own, and those of an image that is not
// read any more are forgotten.
func TestLimitsBySettings(t *testing.T) {
	l := newLimits(config.Warden{}, 4, nil)
	l.SetPool("rbd", config.ImageLimits{config.SyncLimit: 400})
	key := messages.ImageKey{PoolKey: messages.PoolKey{Pool: "rbd"}, GlobalID: "g"}
	paced := l.Join(key)
	if paced.Sync.Rate() != 100 || paced.Replay.Rate() != 0 {
		t.Errorf("%d, %d", paced.Sync.Rate(), paced.Replay.Rate())
	}
	paced.Own(config.ImageLimits{config.SyncLimit: 50, config.ReplayLimit: 60})
	if paced.Sync.Rate() != 50 || paced.Replay.Rate() != 60 {
		t.Errorf("%d, %d", paced.Sync.Rate(), paced.Replay.Rate())
	}
	again := l.Join(key)
	paced.Leave()
	again.Own(nil)
	if again.Sync.Rate() != 100 || again.Replay.Rate() != 0 || len(l.Report()) != 1 {
		t.Errorf("%d, %d, %+v", again.Sync.Rate(), again.Replay.Rate(), l.Report())
	}
	again.Leave()
	if len(l.images) != 0 {
		t.Errorf("%d images are remembered", len(l.images))
	}
}
