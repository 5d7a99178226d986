package bench

import (
	"time"

	"github.com/rbdwarden/rbdwarden/test/harness"
)

// account is what daemon and clusters have used up, between two moments.
type account struct {
	place  *Place
	daemon *harness.Daemon // nil until it is started
	began  time.Time

	cpu, osdCPU time.Duration
	here, there osd
	looks       looks
}

// open begins an account. Nothing must be under way.
func (p *Place) open(d *harness.Daemon) account {
	a := account{place: p, daemon: d}
	a.read()
	a.began = time.Now()
	return a
}

func (a *account) read() {
	r := a.place.r
	if a.daemon != nil {
		a.cpu = cpuOf(a.daemon.Processes()...)
	}
	a.osdCPU = cpuOf(r.osdPID(r.Pair.Primary), r.osdPID(r.Pair.Secondary))
	a.here, a.there = r.osdOf(r.Pair.Primary), r.osdOf(r.Pair.Secondary)
	a.looks = a.place.looks
}

// close writes what was used since into the round's values, for so many writes with so many bytes of payload together.
func (a account) close(writes, payload int) {
	b := account{place: a.place, daemon: a.daemon}
	b.read()
	v := a.place.r.Values
	cpu := (b.cpu - a.cpu).Seconds()
	v["cpu"] = cpu
	v["cpu_per_1000"] = cpu / float64(writes) * 1000
	v["cpu_per_gib"] = cpu / float64(payload) * (1 << 30)
	v["osd_cpu"] = (b.osdCPU - a.osdCPU).Seconds()
	v["remote_ops"] = (b.here.Ops - a.here.Ops) / float64(writes) * 1000
	v["local_ops"] = (b.there.Ops - a.there.Ops - (b.looks.ops - a.looks.ops)) / float64(writes) * 1000
	v["read_per_byte"] = (b.here.Out - a.here.Out) / float64(payload)
	v["written_per_byte"] = (b.there.In - a.there.In) / float64(payload)
	v["peak_rss"] = float64(peakOf(a.daemon.Processes()...)) / (1 << 20)
}

// awaitCommitted waits until the mirror's commit positions have reached the primary's. The looks are far apart: they cost the
// primary's OSD an operation for each image, which are not taken off.
func (p *Place) awaitCommitted(volumes []*Volume) {
	p.r.Helper()
	p.r.await(100*time.Millisecond, func() string { return lacking(volumes, "caught up", progress.caughtUp) })
}
