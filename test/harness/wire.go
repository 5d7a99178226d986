package harness

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/rbdwarden/rbdwarden/lab"
)

// NewRemoteHost is NewHost with a network of its own, which has nothing but its own loopback and what Reach brings there.
func NewRemoteHost(t testing.TB, name string) *Host {
	t.Helper()
	h := newHost(t, name, unix.CLONE_NEWNET)
	if err := h.run(raiseLoopback); err != nil {
		t.Fatalf("%s: loopback: %v", name, err)
	}
	return h
}

// raiseLoopback brings the loopback of the calling thread's network up.
func raiseLoopback() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP)
	return unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, lo)
}

// Wire is what connections pass that can be cut. While it is cut nothing gets through, neither bytes nor the news that an
// end has closed; afterwards all of it does, late, as what a network has held up does.
type Wire struct {
	mu   sync.Mutex
	open chan struct{} // closed while it is whole
}

// NewWire makes a whole wire. It is mended when the test ends.
func NewWire(t testing.TB) *Wire {
	w := &Wire{open: make(chan struct{})}
	close(w.open)
	t.Cleanup(w.Mend)
	return w
}

// Cut cuts the wire.
func (w *Wire) Cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.open:
		w.open = make(chan struct{})
	default:
	}
}

// Mend makes it whole.
func (w *Wire) Mend() {
	w.mu.Lock()
	defer w.mu.Unlock()
	select {
	case <-w.open:
	default:
		close(w.open)
	}
}

func (w *Wire) pass() {
	w.mu.Lock()
	open := w.open
	w.mu.Unlock()
	<-open
}

// Reach lets the host's programs reach an address, which is on another host (nil: on this machine), over wires.
func (h *Host) Reach(t testing.TB, address string, at *Host, wires ...*Wire) {
	t.Helper()
	var listener net.Listener
	err := h.run(func() (err error) {
		listener, err = net.Listen("tcp4", address)
		return err
	})
	if err != nil {
		t.Fatalf("%s: %v", h.Name, err)
	}
	l := &line{at: at, address: address, wires: wires}
	l.all.Go(func() { l.accept(listener) })
	t.Cleanup(func() {
		listener.Close()
		l.end()
		for _, w := range wires {
			w.Mend()
		}
		l.all.Wait()
	})
}

// line is what is behind a listener.
type line struct {
	at      *Host
	address string
	wires   []*Wire
	all     sync.WaitGroup

	mu    sync.Mutex
	ended bool
	conns []net.Conn
}

func (l *line) accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		if l.keep(conn) {
			l.all.Go(func() { l.serve(conn) })
		}
	}
}

// keep notes a connection, to be closed at the end.
func (l *line) keep(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		conn.Close()
		return false
	}
	l.conns = append(l.conns, conn)
	return true
}

func (l *line) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	for _, c := range l.conns {
		c.Close()
	}
}

func (l *line) pass() {
	for _, w := range l.wires {
		w.pass()
	}
}

// serve connects to the other end and carries what comes.
func (l *line) serve(near net.Conn) {
	defer near.Close()
	l.pass()
	var far net.Conn
	err := l.at.run(func() (err error) {
		far, err = net.DialTimeout("tcp4", l.address, 5*time.Second)
		return err
	})
	if err != nil || !l.keep(far) {
		return
	}
	defer far.Close()
	var both sync.WaitGroup
	both.Go(func() { l.carry(far, near) })
	both.Go(func() { l.carry(near, far) })
	both.Wait()
}

// carry carries bytes one way until there are no more.
func (l *line) carry(to, from net.Conn) {
	buffer := make([]byte, 256<<10)
	for {
		n, err := from.Read(buffer)
		l.pass()
		if _, failed := to.Write(buffer[:n]); failed != nil || err != nil {
			if err != nil && !errors.Is(err, io.EOF) {
				to.Close()
			}
			if tcp, ok := to.(*net.TCPConn); ok {
				_ = tcp.CloseWrite() // it may be closed already
			}
			return
		}
	}
}

// Addresses are where a cluster's daemons listen to clients. The manager may take a moment until it does.
func Addresses(t testing.TB, c *lab.Cluster) (all []string) {
	t.Helper()
	Eventually(t, Patience, func() string {
		if all = addresses(t, c); len(all) < 6 {
			return fmt.Sprintf("%s listens at %v; a monitor, a manager and an OSD have two addresses each", c.Name(), all)
		}
		return ""
	})
	return all
}

func addresses(t testing.TB, c *lab.Cluster) (all []string) {
	t.Helper()
	type vector struct {
		Addresses []struct {
			Address string `json:"addr"`
		} `json:"addrvec"`
	}
	var said struct {
		OSDs []struct {
			Public vector `json:"public_addrs"`
		} `json:"osds"`
		Mons []struct {
			Public vector `json:"public_addrs"`
		} `json:"mons"`
		Manager vector `json:"active_addrs"`
	}
	for _, what := range []string{"osd", "mon", "mgr"} {
		decode(t, Run(t, c, "ceph", what, "dump", "--format", "json"), &said)
	}
	vectors := []vector{said.Manager}
	for _, o := range said.OSDs {
		vectors = append(vectors, o.Public)
	}
	for _, m := range said.Mons {
		vectors = append(vectors, m.Public)
	}
	for _, v := range vectors {
		for _, a := range v.Addresses {
			if strings.HasPrefix(a.Address, "127.") && !slices.Contains(all, a.Address) {
				all = append(all, a.Address)
			}
		}
	}
	return all
}
