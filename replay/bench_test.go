package replay

import (
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

// BenchmarkPlanner is the cost of planning a backlog of small writes, a flush after
// every sixteenth, per entry.
func BenchmarkPlanner(b *testing.B) {
	p := New(Config{SplayWidth: 4})
	data := make([]byte, 4096)
	b.ReportAllocs()
	for i := range b.N {
		var ev journal.Event = journal.AioWrite{Offset: uint64(i*7919%4096) << 12, Length: 4096, Data: data}
		if i%16 == 15 {
			ev = journal.AioFlush{}
		}
		position := journal.ObjectPosition{Object: journal.ObjectNumber(i % 4), Entry: journal.EntryTID(i)}
		if err := p.Push(Entry{Position: position, Event: ev, Bytes: 4200}); err != nil {
			b.Fatal(err)
		}
		if i%64 != 63 {
			continue
		}
		for step, ok := p.Next(); ok; step, ok = p.Next() {
			p.Safe(step.ID())
		}
	}
}
