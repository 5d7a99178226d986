package sim

import (
	"context"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/image"
)

// write makes something happen on the primary.
func (p *primary) write(ctx context.Context) error {
	p.turn <- struct{}{}
	defer func() { <-p.turn }()
	if ended, err := p.proceed(ctx); ended || err != nil {
		return err
	}
	size := p.size(p.next() - 1)
	switch {
	case size == 0 && p.rolling():
		return p.do(ctx, wire.AioFlush{}, event{flush: true})
	case size == 0:
		return p.operate(ctx)
	}
	length := 1 + p.rng.IntN(min(p.set.maxSectors, size))
	from := p.rng.IntN(size - length + 1)
	if p.rng.IntN(3) > 0 { // in few places, so that much is written over
		from %= min(16, size-length+1)
	}
	e := event{from: from, to: from + length}
	at, bytes := uint64(from*sector), uint64(length*sector)
	e.position.Entry = p.tid // says whether the event writes the same everywhere
	kind := p.rng.IntN(15)
	switch {
	case e.same():
		b := make([]byte, sector)
		p.stamp(b, p.next(), everywhere)
		return p.do(ctx, wire.AioWriteSame{Offset: at, Length: bytes, Data: b}, e,
			image.IO{Kind: image.WriteSame, Offset: at, Length: bytes, Data: b})
	case kind < 3:
		return p.do(ctx, wire.AioFlush{}, event{flush: true})
	case kind < 5:
		e.zero = true
		return p.do(ctx, wire.AioDiscard{Offset: at, Length: bytes}, e, image.IO{Kind: image.Discard, Offset: at, Length: bytes})
	case kind < 7 && !p.rolling():
		return p.compareAndWrite(ctx, e)
	case kind < 9 && !p.rolling():
		return p.operate(ctx)
	}
	data := p.stamped(e)
	return p.do(ctx, wire.AioWrite{Offset: at, Length: bytes, Data: data}, e,
		image.IO{Kind: image.Write, Offset: at, Length: bytes, Data: data})
}

// stamped is what the next event writes.
func (p *primary) stamped(e event) []byte {
	b := make([]byte, (e.to-e.from)*sector)
	for s := e.from; s < e.to; s++ {
		p.stamp(b[(s-e.from)*sector:][:sector], p.next(), s)
	}
	return b
}

// compareAndWrite journals one that succeeds, or one that finds what an older event left.
func (p *primary) compareAndWrite(ctx context.Context, e event) error {
	e.to, e.compare = min(e.to, e.from+2), true
	if perObject := 1 << p.set.objectOrder / sector; e.from/perObject != (e.to-1)/perObject {
		e.to = e.from + 1 // it may not lie in two objects
	}
	n := p.next()
	behind := n - 1
	if p.rng.IntN(2) == 0 {
		behind = p.rng.Int32N(n)
	}
	compare, write, at := p.contents(behind, e.from, e.to), p.stamped(e), uint64(e.from*sector)
	ev := wire.AioCompareAndWrite{Offset: at, Length: uint64(len(write)), CompareData: compare, WriteData: write}
	if string(compare) != string(p.contents(n-1, e.from, e.to)) {
		e.from, e.to = 0, 0 // it fails here, and has to fail there
		return p.do(ctx, ev, e)
	}
	return p.do(ctx, ev, e, image.IO{Kind: image.Write, Offset: at, Length: uint64(len(write)), Data: write})
}
