//go:build live

package librados

import (
	"fmt"
	"runtime"
	"testing"

	"github.com/rbdwarden/rbdwarden/rados"
)

// One object per goroutine, so that objects' locks at the OSD do not serialise.
func benchmark(b *testing.B, bytes int, op func(io rados.IOContext, object string) error) {
	io := openTest(b, connectTest(b))
	b.SetBytes(int64(bytes))
	b.ReportAllocs()
	b.SetParallelism(max(1, 32/runtime.GOMAXPROCS(0)))
	object := make(chan string, 1024)
	for i := range cap(object) {
		object <- fmt.Sprint("o", i)
	}
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		name := <-object
		for pb.Next() {
			if err := op(io, name); err != nil {
				b.Error(err)
				return
			}
		}
	})
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
}

func BenchmarkLiveWrite(b *testing.B) {
	for _, size := range []int{4 << 10, 64 << 10, 4 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			data := make([]byte, size)
			benchmark(b, size, func(io rados.IOContext, object string) error {
				var op rados.WriteOp
				return io.Write(b.Context(), object, op.Write(0, data))
			})
		})
	}
}

// 64 writes of 4 KiB in one operation, as replay does them.
func BenchmarkLiveWriteMany(b *testing.B) {
	data := make([]byte, 4<<10)
	benchmark(b, 64*len(data), func(io rados.IOContext, object string) error {
		var op rados.WriteOp
		for i := range uint64(64) {
			op.Write(i<<14, data)
		}
		return io.Write(b.Context(), object, &op)
	})
}

func BenchmarkLiveRead(b *testing.B) {
	for _, size := range []int{4 << 10, 4 << 20} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			data := make([]byte, size)
			benchmark(b, size, func(io rados.IOContext, object string) error {
				var op rados.ReadOp
				s := op.Read(0, uint64(size))
				err := io.Read(b.Context(), object, &op)
				if err == nil && len(s.Data) == size {
					return nil
				}
				var w rados.WriteOp
				return io.Write(b.Context(), object, w.Write(0, data))
			})
		})
	}
}
