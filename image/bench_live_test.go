//go:build live

package image

import (
	"math/rand/v2"
	"testing"
	"time"
)

// BenchmarkLiveApply applies batches of random 4 KiB writes to an image of 1 GiB, as
// replay of a backlog does.
func BenchmarkLiveApply(b *testing.B) {
	f := setUp(b)
	spec := f.spec()
	spec.Size, spec.Order = 1<<30, 22
	f.create(spec)
	im := f.openImage(f.io, spec.ID)
	defer f.close(im)
	const writes = 2048
	data := make([]byte, 4096)
	rng := rand.New(rand.NewPCG(1, 2))
	b.SetBytes(writes * 4096)
	for b.Loop() {
		ios := make([]IO, writes)
		for i := range ios {
			ios[i] = IO{Kind: Write, Offset: rng.Uint64N(1<<18) * 4096, Length: 4096, Data: data}
		}
		if _, err := im.Apply(within(b, time.Minute), ios); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.N)*writes/b.Elapsed().Seconds(), "writes/s")
}
