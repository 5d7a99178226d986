package compare

import (
	"crypto/rand"
	"encoding/binary"
	"sync"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
)

// The units of comparison, in bytes: a coarse chunk that differs is compared in fine
// ones. A fine one is what object stores allocate at least, and so what is worth
// telling apart.
const (
	Coarse = 64 << 10
	Fine   = 4 << 10
)

// Comparer compares objects and counts what that takes. It may be used by many
// goroutines.
type Comparer struct {
	seed            uint64
	zeros           sync.Map      // length → sum of so many zeros
	checksums, data atomic.Uint64 // bytes that were received
}

// New makes a Comparer with a seed of its own.
func New() *Comparer {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails, see crypto/rand
	return &Comparer{seed: binary.LittleEndian.Uint64(b[:])}
}

// Moved tells how many bytes of checksums and of data the OSDs have sent so far.
func (c *Comparer) Moved() (checksums, data uint64) { return c.checksums.Load(), c.data.Load() }

func (c *Comparer) sum(b []byte) uint64 {
	h := xxhash.NewWithSeed(c.seed)
	_, _ = h.Write(b) // never fails
	return h.Sum64()
}

// zero is the checksum of a chunk of zeros.
func (c *Comparer) zero(length uint64) uint64 {
	if s, ok := c.zeros.Load(length); ok {
		return s.(uint64)
	}
	s := c.sum(make([]byte, length))
	c.zeros.Store(length, s)
	return s
}
