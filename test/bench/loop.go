package bench

import (
	"fmt"
	"os"
	"time"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbdwarden/rbdwarden/lab"
)

// loopWidth is how many operations the loops have under way at a time.
const loopWidth = 16

// loop does what RADOS has to do for a backlog, and nothing else: it reads so many bytes from objects of the primary, and
// writes them to where the writes went on the secondary. The plain loop sends an operation for each write, the gathered
// one an operation for each object with all of its writes in it, in their order.
func (r *Round) loop(b backlog) {
	p := r.newPlace(lab.PoolMode)
	const journalObject = 16 * mib
	total := b.payload()
	objects := (total + journalObject - 1) / journalObject
	left := func(n int) int { return min(journalObject, total-n*journalObject) }
	r.must(parallel(objects, 2, func(n int) error {
		return p.here.WriteFull(fmt.Sprintf("journal.%d", n), payload(n, left(n)-8))
	}))
	v := &Volume{place: p, copy: "loop", size: b.size, order: objectOrder}
	extents := v.scatter(b.writes, b.bytes, 0)
	if b.inOrder {
		extents = v.sequence(b.writes, b.bytes)
	}
	cpu, began := cpuOf(os.Getpid()), time.Now()
	r.must(parallel(objects, 2, func(n int) error {
		_, err := p.here.Read(fmt.Sprintf("journal.%d", n), make([]byte, left(n)), 0)
		return err
	}))
	if r.Side == Plain {
		r.must(parallel(len(extents), loopWidth, func(n int) error {
			oid, at := v.object(extents[n].at)
			return p.there.Write(oid, payload(n, extents[n].size), at)
		}))
	} else {
		r.gathered(v, extents)
	}
	r.Values["seconds"] = time.Since(began).Seconds()
	used := (cpuOf(os.Getpid()) - cpu).Seconds()
	r.Values["cpu"] = used
	r.Values["cpu_per_1000"] = used / float64(b.writes) * 1000
	r.Values["cpu_per_gib"] = used / float64(total) * (1 << 30)
}

// operationMost bounds the payload of one operation of the gathered loop, in bytes.
const operationMost = 16 * mib

// gathered writes all extents, those of one object together.
func (r *Round) gathered(v *Volume, extents []extent) {
	type piece struct {
		n  int
		at uint64
	}
	pieces := map[string][]piece{}
	for n, e := range extents {
		oid, at := v.object(e.at)
		pieces[oid] = append(pieces[oid], piece{n, at})
	}
	var oids []string
	for oid := range pieces {
		oids = append(oids, oid)
	}
	r.must(parallel(len(oids), loopWidth, func(i int) error {
		for rest := pieces[oids[i]]; len(rest) > 0; {
			op, bytes := rados.CreateWriteOp(), 0
			for ; len(rest) > 0 && bytes < operationMost; rest = rest[1:] {
				data := payload(rest[0].n, extents[rest[0].n].size)
				op.Write(data, rest[0].at)
				bytes += len(data)
			}
			err := op.Operate(v.place.there, oids[i], rados.OperationNoFlag)
			op.Release()
			if err != nil {
				return err
			}
		}
		return nil
	}))
}
