package harness

import (
	"context"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/ceph/go-ceph/rados"
	"github.com/ceph/go-ceph/rbd"

	"github.com/rbdwarden/rbdwarden/lab"
)

// Load writes to many images of a pool from one process and over one connection, as a host with many virtual machines
// does. Each image has a goroutine of its own, which writes something small again and again.
type Load struct {
	Pool   *Pool
	Guests []*Guest

	conn  *rados.Conn
	ioctx *rados.IOContext
	there *rados.IOContext // on the secondary; nil until somebody looks there
	stop  context.CancelFunc
	wait  sync.WaitGroup
}

// Guest is one image of a load and what is written to it.
type Guest struct {
	*Image
	// ID and GlobalID are the image's on the primary, and on every site.
	ID, GlobalID string
	// Writer knows what the image must contain. While the load runs it is the load's.
	Writer *Writer

	ioctx *rados.IOContext
	busy  sync.Mutex // held while something is written
	mu    sync.Mutex
	wrote []time.Time
}

// LoadOptions say how much is written.
type LoadOptions struct {
	Images int
	// Size of each image in bytes; its contents are held in memory.
	Size uint64
	// Pause between two writes to an image.
	Pause time.Duration
	// Plain leaves compare-and-writes out, and with them the ledger: rbd-mirror repeats those behind its last flush after a
	// kill -9, and those from before its first copy (docs/ceph-notes.md). What is left can be repeated.
	Plain bool
}

// loadOrder makes objects of 64 KiB: a small image has many of them, too.
const loadOrder = 16

// NewLoad creates images on the pool's primary and opens them. Start starts the writing.
func NewLoad(t testing.TB, pool *Pool, o LoadOptions) *Load {
	t.Helper()
	l := &Load{Pool: pool}
	l.conn, l.ioctx = connect(t, pool, pool.Pair.Primary)
	for n := range o.Images {
		g := l.newGuest(t, fmt.Sprintf("image%02d", n), o.Size)
		g.Writer = newWriter(t, l.ioctx, g.Image, uint64(1000+n))
		g.Writer.small, g.Writer.plain = true, o.Plain
		t.Cleanup(g.Writer.Close) // before the connection
		l.Guests = append(l.Guests, g)
	}
	return l
}

// connect opens a pool on a cluster as its administrator, until the test ends. Options are names and values of Ceph's.
func connect(t testing.TB, pool *Pool, c *lab.Cluster, options ...string) (*rados.Conn, *rados.IOContext) {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	conn, err := rados.NewConnWithUser("admin")
	must(err)
	must(conn.ReadConfigFile(c.Conf()))
	for i := 0; i+1 < len(options); i += 2 {
		must(conn.SetConfigOption(options[i], options[i+1]))
	}
	must(conn.Connect())
	t.Cleanup(conn.Shutdown)
	ioctx, err := conn.OpenIOContext(pool.Name)
	must(err)
	ioctx.SetNamespace(pool.Namespace)
	t.Cleanup(ioctx.Destroy)
	return conn, ioctx
}

// newGuest creates an image.
func (l *Load) newGuest(t testing.TB, name string, size uint64) *Guest {
	t.Helper()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("create %s: %v", name, err)
		}
	}
	options := rbd.NewRbdImageOptions()
	defer options.Destroy()
	must(options.SetUint64(rbd.ImageOptionOrder, loadOrder))
	must(options.SetUint64(rbd.ImageOptionFeatures, rbd.FeatureLayering|rbd.FeatureExclusiveLock|rbd.FeatureObjectMap|
		rbd.FeatureFastDiff|rbd.FeatureDeepFlatten|rbd.FeatureJournaling))
	must(rbd.CreateImage(l.ioctx, name, size, options))
	image, err := rbd.OpenImageReadOnly(l.ioctx, name, rbd.NoSnapshot)
	must(err)
	g := &Guest{Image: &Image{Pool: l.Pool, Name: name}, ioctx: l.ioctx}
	g.ID, err = image.GetId()
	must(err)
	mirror, err := image.GetMirrorImageInfo()
	must(err)
	g.GlobalID = mirror.GlobalID
	must(image.Close())
	return g
}

// Start starts writing to all images, until Hold or Stop.
func (l *Load) Start(t testing.TB, pause time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	l.stop = cancel
	for n, g := range l.Guests {
		l.wait.Go(func() {
			// Not all at once.
			timer := time.NewTicker(pause + time.Duration(n)*pause/time.Duration(4*len(l.Guests)))
			defer timer.Stop()
			for turn := 0; ; turn++ {
				select {
				case <-ctx.Done():
					return
				case <-timer.C:
				}
				g.write(func(w *Writer) {
					if turn%8 == 7 && !w.plain {
						w.TurnPage()
					} else {
						w.Write(1)
					}
				})
			}
		})
	}
}

// write lets somebody write to the image who is alone in that, and notes when it was over.
func (g *Guest) write(do func(*Writer)) {
	g.busy.Lock()
	defer g.busy.Unlock()
	do(g.Writer)
	g.mu.Lock()
	defer g.mu.Unlock()
	g.wrote = append(g.wrote, time.Now())
}

// Fill writes so many bytes to the image, large writes and many at a time. The load goes on afterwards, if it runs.
func (g *Guest) Fill(bytes int) {
	g.write(func(w *Writer) { w.Fill(bytes) })
}

// Hold ends the writing. The images stay open.
func (l *Load) Hold() {
	if l.stop != nil {
		l.stop()
	}
	l.wait.Wait()
}

// Flush has each guest flush: rbd-mirror may never commit what no flush follows. The load must have been held.
func (l *Load) Flush() {
	for _, g := range l.Guests {
		g.write(func(w *Writer) { w.Flush() })
	}
}

// Stop is Hold, and closes the images: their journals then hold all that was written.
func (l *Load) Stop() {
	l.Hold()
	for _, g := range l.Guests {
		g.Writer.Close()
	}
}

// Wrote is when writes to the image have ended, in order.
func (g *Guest) Wrote() []time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.wrote[:len(g.wrote):len(g.wrote)]
}

// AssertEqual fails the test unless every image has the contents that were written to it, on both sites, once each. The
// load must have been stopped and the mirror must have caught up.
func (l *Load) AssertEqual(t testing.TB) {
	t.Helper()
	secondary := l.copies(t)
	for _, g := range l.Guests {
		want := g.Writer.Digest()
		for _, site := range []struct {
			name  string
			ioctx *rados.IOContext
		}{{l.Pool.Pair.Primary.Name(), l.ioctx}, {l.Pool.Pair.Secondary.Name(), secondary}} {
			got, err := digest(site.ioctx, g.Name)
			if err != nil || got != want {
				t.Errorf("%s on %s contains %+v, want %+v (%v) after %d operations", g.Spec(), site.name, got, want, err, g.Writer.Operations)
			}
		}
	}
}

// copies is the pool on the secondary.
func (l *Load) copies(t testing.TB) *rados.IOContext {
	t.Helper()
	if l.there == nil {
		_, l.there = connect(t, l.Pool, l.Pool.Pair.Secondary)
	}
	return l.there
}

// digest reads the head of an image.
func digest(ioctx *rados.IOContext, name string) (d Digest, err error) {
	image, err := rbd.OpenImageReadOnly(ioctx, name, rbd.NoSnapshot)
	if err != nil {
		return d, err
	}
	defer func() { err = errors.Join(err, image.Close()) }()
	size, err := image.GetSize()
	if err != nil {
		return d, err
	}
	sum, buffer := md5.New(), make([]byte, 1<<20)
	for at := uint64(0); at < size; at += uint64(len(buffer)) {
		part := buffer[:min(uint64(len(buffer)), size-at)]
		if _, err := image.ReadAt(part, int64(at)); err != nil {
			return d, err
		}
		sum.Write(part)
	}
	return Digest{int64(size), hex.EncodeToString(sum.Sum(nil))}, nil
}
