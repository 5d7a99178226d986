package main

import (
	"cmp"
	"context"
	"slices"
	"strings"
	"sync"

	"github.com/rbdwarden/rbdwarden/admin"
	"github.com/rbdwarden/rbdwarden/report"
)

// logger is a group of counters with a name: Ceph's word.
type logger struct {
	name     string
	counters []counter
}

// counter is one counter of a logger.
type counter struct {
	name, about, nick string
	kind              counterKind
	bytes             bool    // its unit
	value             uint64  // of a number; how many, of a time
	sum               float64 // seconds, of a time
}

type counterKind uint8

const (
	counts  counterKind = iota // grows
	gauges                     // goes up and down
	timeAvg                    // how many, and how long they took together
)

// replayCounters are those that rbd-mirror 16.2 has for journals, in all and for each
// image (src/tools/rbd_mirror/{main,image_replayer/journal/Replayer}.cc).
func replayCounters(r report.Replayed) []counter {
	return []counter{
		{name: "replay", about: "Replays", nick: "r", value: r.Entries},
		{name: "replay_bytes", about: "Replayed data", nick: "rb", bytes: true, value: r.Bytes},
		{name: "replay_latency", about: "Replay latency", nick: "rl", kind: timeAvg, value: r.Entries, sum: r.Seconds},
	}
}

// loggers are the counters of a report: rbd-mirror's, then ours.
func loggers(d report.Daemon) []logger {
	var total report.Replayed
	var images []logger
	for _, w := range d.Workers {
		total.Add(w.Replayed)
		for _, p := range w.Pools {
			for _, i := range p.Images {
				images = append(images, logger{"rbd_mirror_image_" + specOf(i), replayCounters(i.Replayed)})
			}
		}
	}
	all := append(images,
		logger{"rbd_mirror", replayCounters(total)},
		// Of mirroring by snapshots, which is not done here.
		logger{"rbd_mirror_snapshot", []counter{
			{name: "snapshots", about: "Snapshots", nick: "r"},
			{name: "snapshots_time", about: "Snapshots time", nick: "rl", kind: timeAvg},
			{name: "replay_bytes", about: "Replayed data", nick: "rb", bytes: true},
		}},
		logger{"rbd_warden", wardenCounters(d)},
		logger{"rbd_warden_ends", endCounters(d)})
	slices.SortStableFunc(all, func(a, b logger) int { return cmp.Compare(a.name, b.name) })
	return all
}

// wardenCounters are what rbd-mirror has no counters for.
func wardenCounters(d report.Daemon) []counter {
	var ready, restarts, rss, images, replaying, failed, parked, stalled, imageRestarts, held, behind uint64
	for _, w := range d.Workers {
		restarts += uint64(w.Restarts)
		rss += uint64(w.RSS)
		if w.State == report.WorkerReady {
			ready++
		}
		for _, p := range w.Pools {
			for _, i := range p.Images {
				images++
				imageRestarts += uint64(i.Restarts)
				held += uint64(i.BytesHeld)
				behind += uint64(max(0, i.EntriesBehind))
				if i.StalledSeconds > 0 {
					stalled++
				}
				switch {
				case i.Parked:
					parked++
				case i.State == "replaying":
					replaying++
				case i.State == "error":
					failed++
				}
			}
		}
	}
	return []counter{
		{name: "workers", about: "Worker processes", kind: gauges, value: uint64(len(d.Workers))},
		{name: "workers_ready", about: "Worker processes that do their work", kind: gauges, value: ready},
		{name: "worker_restarts", about: "Worker processes started again", value: restarts},
		{name: "worker_resident_bytes", about: "Resident memory of worker processes", kind: gauges, bytes: true, value: rss},
		{name: "images", about: "Images", kind: gauges, value: images},
		{name: "images_replaying", about: "Images that replay", kind: gauges, value: replaying},
		{name: "images_failed", about: "Images in error", kind: gauges, value: failed},
		{name: "images_parked", about: "Images that crashed too often", kind: gauges, value: parked},
		{name: "images_stalled", about: "Images that make no progress although they should", kind: gauges, value: stalled},
		{name: "image_restarts", about: "Restarts of images", value: imageRestarts},
		{name: "entries_behind", about: "Journal entries that are not replayed", kind: gauges, value: behind},
		{name: "bytes_held", about: "Journal data in memory", kind: gauges, bytes: true, value: held},
	}
}

// perfBase is what counters had when they were reset. The counters themselves never go
// back; only what the admin socket shows starts from nothing.
type perfBase struct {
	mu   sync.Mutex
	base map[string]counter // by logger and name, with a NUL between
}

// reset forgets what the counters have counted, of one logger or ("all") of all. It tells
// whether there is one.
func (b *perfBase) reset(name string, all []logger) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.base == nil {
		b.base = map[string]counter{}
	}
	found := name == "all"
	for _, l := range all {
		if name != "all" && name != l.name {
			continue
		}
		found = true
		for _, c := range l.counters {
			if c.kind != gauges {
				b.base[l.name+"\x00"+c.name] = c
			}
		}
	}
	return found
}

// since is what has been counted since the reset. A counter that has less than it had then
// belongs to a new process, and counts in full.
func (b *perfBase) since(l logger) logger {
	b.mu.Lock()
	defer b.mu.Unlock()
	l.counters = slices.Clone(l.counters)
	for i, c := range l.counters {
		key := l.name + "\x00" + c.name
		base, ok := b.base[key]
		switch {
		case !ok:
		case base.value > c.value || base.sum > c.sum:
			delete(b.base, key)
		default:
			l.counters[i].value -= base.value
			l.counters[i].sum -= base.sum
		}
	}
	return l
}

// put adds the counter's value.
func (c counter) put(v *admin.Value) {
	if c.kind != timeAvg {
		v.Uint(c.name, c.value)
		return
	}
	o := v.Object(c.name)
	o.Uint("avgcount", c.value)
	o.Seconds("sum", c.sum)
	o.Seconds("avgtime", c.sum/max(1, float64(c.value)))
}

// putSchema adds the counter's description. The types are Ceph's flags: 1 time, 2 number,
// 4 average, 8 counter (src/common/perf_counters.h).
func (c counter) putSchema(v *admin.Value) {
	o := v.Object(c.name)
	kind := map[counterKind]struct {
		flags         int64
		metric, value string
	}{counts: {2 | 8, "counter", "integer"}, gauges: {2, "gauge", "integer"}, timeAvg: {1 | 4, "gauge", "real-integer-pair"}}[c.kind]
	o.Int("type", kind.flags)
	o.String("metric_type", kind.metric)
	o.String("value_type", kind.value)
	o.String("description", c.about)
	o.String("nick", c.nick)
	o.Int("priority", 5)
	units := "none"
	if c.bytes {
		units = "bytes"
	}
	o.String("units", units)
}

// perfCommands show and reset counters.
func (a *adminServer) perfCommands(d report.Daemon) []admin.Command {
	ours := loggers(d)
	one := []admin.Param{{Name: "logger", Optional: true}, {Name: "counter", Optional: true}}
	dump := func(ctx context.Context, args admin.Args) (admin.Answer, error) {
		return a.perf1(ctx, "perf dump", ours, args, func(c counter, v *admin.Value) { c.put(v) })
	}
	schema := func(ctx context.Context, args admin.Args) (admin.Answer, error) {
		return a.perf1(ctx, "perf schema", ours, args, func(c counter, v *admin.Value) { c.putSchema(v) })
	}
	histogram := func(ctx context.Context, args admin.Args) (admin.Answer, error) {
		answer, err := a.perf1(ctx, "perf histogram dump", ours, args, func(counter, *admin.Value) {})
		return answer, err
	}
	labeled := func(what func(counter, *admin.Value)) func(context.Context, admin.Args) (admin.Answer, error) {
		return func(context.Context, admin.Args) (admin.Answer, error) {
			return admin.Answer{Value: labeledCounters(d, what)}, nil
		}
	}
	return []admin.Command{
		{Prefix: "1", Run: dump},
		{Prefix: "perfcounters_dump", Run: dump},
		{Prefix: "perf dump", Help: "dump perfcounters value", Params: one, Run: dump},
		{Prefix: "2", Run: schema},
		{Prefix: "perfcounters_schema", Run: schema},
		{Prefix: "perf schema", Help: "dump perfcounters schema", Run: schema},
		{Prefix: "perf histogram dump", Help: "dump perf histogram values", Params: one, Run: histogram},
		{Prefix: "perf histogram schema", Help: "dump perf histogram schema", Run: histogram},
		{Prefix: "perf reset", Help: "perf reset <name>: perf reset all or one perfcounter name", Params: []admin.Param{{Name: "var"}},
			Run: func(ctx context.Context, args admin.Args) (admin.Answer, error) { return a.perfReset(ctx, args, ours) }},
		{Prefix: "counter dump", Help: "dump all labeled and non-labeled counters and their values", Run: labeled(func(c counter, v *admin.Value) { c.put(v) })},
		{Prefix: "counter schema", Help: "dump all labeled and non-labeled counters schemas", Run: labeled(func(c counter, v *admin.Value) { c.putSchema(v) })},
	}
}

// perf1 shows counters of all loggers or one: those of librados in the workers, and ours
// among them, by name.
func (a *adminServer) perf1(ctx context.Context, command string, ours []logger, args admin.Args, put func(counter, *admin.Value)) (admin.Answer, error) {
	v := admin.NewObject("perfcounter_collection")
	wanted, only := args.First("logger"), args.First("counter")
	var members []*admin.Value
	for i := range a.d.workers {
		// A worker that is down has no counters; the daemon's are told all the same.
		inner, err := a.ask(ctx, i, command, nil)
		if err != nil {
			continue
		}
		for _, m := range inner.Members() {
			members = append(members, m.Renamed(workerPrefix(i)+m.Name()))
		}
	}
	for _, l := range ours {
		o := admin.NewObject(l.name)
		for _, c := range a.perf.since(l).counters {
			put(c, o)
		}
		members = append(members, o)
	}
	slices.SortStableFunc(members, func(x, y *admin.Value) int { return cmp.Compare(x.Name(), y.Name()) })
	for _, m := range members {
		if wanted != "" && wanted != m.Name() {
			continue
		}
		if only != "" {
			m.Remove(func(name string) bool { return name != only })
		}
		v.Put(m)
	}
	return admin.Answer{Value: v}, nil
}

func (a *adminServer) perfReset(ctx context.Context, args admin.Args, ours []logger) (admin.Answer, error) {
	name := args.First("var")
	found := a.perf.reset(name, ours)
	for i := range a.d.workers {
		inner, ok := strings.CutPrefix(name, workerPrefix(i))
		if !ok && name != "all" {
			continue
		}
		if name == "all" {
			inner = name
		}
		v, err := a.ask(ctx, i, "perf reset", admin.Args{"var": {inner}})
		found = found || err == nil && v.Member("success") != nil
	}
	v := admin.NewObject("perf_reset")
	if found {
		v.String("success", "perf reset "+name)
	} else {
		v.String("error", "Not find: "+name) // Ceph's words
	}
	return admin.Answer{Value: v}, nil
}

// labeledCounters are the counters as rbd-mirror 18.2 has them, with labels
// (src/tools/rbd_mirror/{main,image_replayer/journal/Replayer}.cc there).
func labeledCounters(d report.Daemon, put func(counter, *admin.Value)) *admin.Value {
	v := admin.NewObject("perfcounter_collection")
	total := v.Array("rbd_mirror_journal")
	var sum report.Replayed
	each := admin.NewArray("rbd_mirror_journal_image")
	add := func(list *admin.Value, r report.Replayed, labels ...[2]string) {
		o := list.Object("counters")
		l := o.Object("labels")
		for _, label := range labels {
			l.String(label[0], label[1])
		}
		counters := o.Object("counters")
		for i, name := range []string{"entries", "replay_bytes", "replay_latency"} {
			c := replayCounters(r)[i]
			c.name = name
			put(c, counters)
		}
	}
	for _, w := range d.Workers {
		sum.Add(w.Replayed)
		for _, p := range w.Pools {
			for _, i := range p.Images {
				add(each, i.Replayed, [2]string{"image", i.Name}, [2]string{"namespace", i.Namespace}, [2]string{"pool", i.Pool})
			}
		}
	}
	add(total, sum)
	v.Put(each)
	o := v.Array("rbd_warden").Object("counters")
	o.Object("labels")
	counters := o.Object("counters")
	for _, c := range wardenCounters(d) {
		put(c, counters)
	}
	ends := v.Array("rbd_warden_ends")
	for _, e := range endsOf(d) {
		o := ends.Object("counters")
		labels := o.Object("labels")
		labels.String("level", e.level)
		labels.String("reason", e.reason)
		c := e.counter()
		c.name = "ends"
		put(c, o.Object("counters"))
	}
	return v
}
