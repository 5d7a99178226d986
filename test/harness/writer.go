package harness

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"

	"github.com/ceph/go-ceph/rados"

	"github.com/rbdwarden/rbdwarden/lab"
)

// Writer writes to an image through librbd, as a virtual machine does, and knows at each moment what the image must
// contain. Its operations come from a seed: writes of all sizes, discards, write-same, compare-and-write that succeeds
// and that fails, and flushes. It is for one goroutine.
type Writer struct {
	// Contents is what the image holds after the operations so far.
	Contents []byte
	// Operations counts them.
	Operations int

	t      testing.TB
	random *rand.Rand
	conn   *rados.Conn
	ioctx  *rados.IOContext
	disk   *disk
	closed sync.Once
	small  bool // small writes only, and none to the ledger
	plain  bool // no compare-and-write; see LoadOptions.Plain
}

// sector is the unit of all offsets and lengths, in bytes; a compare-and-write may not cross one.
const sector = 512

// OpenWriter opens the image on a cluster for writing and reads what it contains. The test closes it at its end at the
// latest.
func (i *Image) OpenWriter(t testing.TB, c *lab.Cluster, seed uint64) *Writer {
	t.Helper()
	w := i.NewWriter(t, c, seed)
	t.Cleanup(w.Close)
	return w
}

// NewWriter is OpenWriter for a test that opens many and closes each itself.
func (i *Image) NewWriter(t testing.TB, c *lab.Cluster, seed uint64) *Writer {
	t.Helper()
	w := &Writer{t: t, random: rand.New(rand.NewPCG(seed, seed))}
	opened := false
	defer func() {
		if !opened {
			w.Close()
		}
	}()
	var err error
	if w.conn, err = rados.NewConnWithUser("admin"); err != nil {
		t.Fatal(err)
	}
	w.check(w.conn.ReadConfigFile(c.Conf()))
	if seed%2 == 0 { // the least that librbd allows, instead of 64 KiB
		w.check(w.conn.SetConfigOption("rbd_discard_granularity_bytes", "4096"))
	}
	w.check(w.conn.Connect())
	if w.ioctx, err = w.conn.OpenIOContext(i.Pool.Name); err != nil {
		t.Fatal(err)
	}
	w.ioctx.SetNamespace(i.Pool.Namespace)
	w.open(w.ioctx, i.Name)
	opened = true
	return w
}

// newWriter opens an image over a connection that others use, too.
func newWriter(t testing.TB, ioctx *rados.IOContext, i *Image, seed uint64) *Writer {
	t.Helper()
	w := &Writer{t: t, random: rand.New(rand.NewPCG(seed, seed))}
	w.open(ioctx, i.Name)
	return w
}

func (w *Writer) open(ioctx *rados.IOContext, name string) {
	w.t.Helper()
	disk, err := openDisk(ioctx, name)
	if err != nil {
		w.t.Fatal(err)
	}
	w.disk = disk
	w.Reload()
}

// Reload takes size and contents from the image, after something else than this writer has changed them.
func (w *Writer) Reload() {
	w.t.Helper()
	size, err := w.disk.size()
	w.check(err)
	w.Contents = make([]byte, size)
	w.reread(0, int(size))
}

// reread takes a range of the contents from the image.
func (w *Writer) reread(at, size int) {
	w.t.Helper()
	const most = 8 << 20
	for end := at + size; at < end; at += most {
		w.check(w.disk.read(at, w.Contents[at:min(at+most, end)]))
	}
}

// Digest is what DigestOn must answer for the contents so far.
func (w *Writer) Digest() Digest {
	sum := md5.Sum(w.Contents)
	return Digest{int64(len(w.Contents)), hex.EncodeToString(sum[:])}
}

// Resize changes the image's size.
func (w *Writer) Resize(size uint64) {
	w.t.Helper()
	w.check(w.disk.resize(size))
	w.Resized(size)
}

// Resized tells the writer that something else has changed the image's size.
func (w *Writer) Resized(size uint64) {
	old := w.Contents
	w.Contents = make([]byte, size)
	copy(w.Contents, old)
}

// Write does n operations at random.
func (w *Writer) Write(n int) {
	w.t.Helper()
	for range n {
		w.step()
		w.Operations++
	}
}

// Burst starts up to n writes side by side, as a guest's file system does, and waits for all of them.
func (w *Writer) Burst(n int) {
	w.t.Helper()
	var places []place
	for range n {
		at, size := w.extent()
		apart := !slices.ContainsFunc(places, func(p place) bool { return at < p.at+p.size && p.at < at+size })
		if apart { // the order of those that overlap would be anybody's guess
			places = append(places, place{at, size})
			copy(w.Contents[at:], w.noise(size))
		}
	}
	w.check(w.disk.writeAtOnce(places, w.Contents))
	w.Operations += len(places)
}

// Fill writes so many bytes, rounded up to whole blocks of 64 KiB, over and over the image but for its last block.
func (w *Writer) Fill(bytes int) {
	w.t.Helper()
	const block, together = 64 << 10, 8
	blocks := len(w.Contents)/block - 1
	for at := 0; bytes > 0; {
		var places []place
		for ; len(places) < min(together, blocks) && bytes > 0; bytes -= block {
			places = append(places, place{at * block, block})
			copy(w.Contents[at*block:], w.noise(block))
			at = (at + 1) % blocks
		}
		w.check(w.disk.writeAtOnce(places, w.Contents))
		w.Operations += len(places)
	}
}

// Flush waits until all is durable on the primary.
func (w *Writer) Flush() {
	w.t.Helper()
	w.check(w.disk.flush())
}

// Close closes the image; its journal then holds every operation.
func (w *Writer) Close() {
	w.closed.Do(func() {
		if w.disk != nil {
			if err := w.disk.close(); err != nil {
				w.t.Error(err)
			}
		}
		if w.ioctx != nil {
			w.ioctx.Destroy()
		}
		if w.conn != nil {
			w.conn.Shutdown()
		}
	})
}

// extent picks a range of whole sectors, most of them small.
func (w *Writer) extent() (at, size int) {
	sectors := len(w.Contents) / sector
	sizes := []int{1, 8, 8, 8, 64, 256, 2048}
	if w.small {
		sectors, sizes = sectors-1, sizes[:5]
	}
	most := sizes[w.random.IntN(len(sizes))]
	n := min(1+w.random.IntN(most), sectors)
	return w.random.IntN(sectors-n+1) * sector, n * sector
}

// noise makes bytes that no other write makes.
func (w *Writer) noise(size int) []byte {
	b := make([]byte, size)
	for i := range b {
		b[i] = byte(w.random.Uint32())
	}
	return b
}

// step does one operation.
func (w *Writer) step() {
	w.t.Helper()
	at, size := w.extent()
	target := w.Contents[at : at+size]
	switch k := w.random.IntN(100); {
	case k < 62, k >= 82 && k < 94 && w.plain:
		data := w.noise(size)
		w.check(w.disk.write(at, data))
		copy(target, data)
	case k < 74:
		w.discard(at, size)
	case k < 82:
		data := w.noise(sector)
		w.check(w.disk.writeSame(at, size, data))
		for i := 0; i < size; i += sector {
			copy(target[i:], data)
		}
	case k < 94:
		w.compareAndWrite(at, w.random.IntN(2) == 0)
	default:
		w.Flush()
	}
}

// discard gives a range back, and half of the time the whole objects around it, which can then be removed.
func (w *Writer) discard(at, size int) {
	w.t.Helper()
	const object = 4 << 20
	if w.random.IntN(2) == 0 && at/object*object+object <= len(w.Contents) {
		at, size = at/object*object, object
	}
	w.check(w.disk.discard(at, size))
	w.reread(at, size) // what is not of whole granules stays
}

// compareAndWrite replaces one sector if it holds what is expected, or finds that it does not.
func (w *Writer) compareAndWrite(at int, match bool) {
	w.t.Helper()
	target := w.Contents[at : at+sector]
	expected := bytes.Clone(target)
	if !match {
		expected[w.random.IntN(sector)] ^= 0xff
	}
	data := w.noise(sector)
	err := w.disk.compareAndWrite(at, expected, data)
	switch {
	case match:
		w.check(err)
		copy(target, data)
	case !errors.Is(err, syscall.EILSEQ):
		w.t.Fatalf("compare-and-write at %d on other contents: %v, want EILSEQ", at, err)
	}
}

// TurnPage turns a page of the ledger, which is the image's last sector: it shows for ever whether anything was left out or
// done twice. First comes a compare-and-write that expects the page which is yet to be written; it finds the page before
// and does nothing. Whoever does it again after the page was written tears the page out, and every later one expects it.
func (w *Writer) TurnPage() {
	w.t.Helper()
	at := len(w.Contents) - sector
	page := w.Contents[at:]
	next := w.noise(sector)
	if err := w.disk.compareAndWrite(at, next, w.noise(sector)); !errors.Is(err, syscall.EILSEQ) {
		w.t.Fatalf("compare-and-write of a page to come: %v, want EILSEQ", err)
	}
	w.check(w.disk.compareAndWrite(at, bytes.Clone(page), next))
	copy(page, next)
	w.Operations += 2
}

func (w *Writer) check(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}
