package harness

import (
	"errors"
	"io"
	"net"
	"os"
	"testing"
	"time"
)

// TestWire: a host reaches only what it is given, and nothing gets through a wire that is cut; all of it does when the wire
// is mended.
func TestWire(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may make a network")
	}
	server, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	address := server.Addr().String()
	h, wire := NewRemoteHost(t, "island"), NewWire(t)
	dial := func() (conn net.Conn, err error) {
		err = h.run(func() (err error) {
			conn, err = net.Dial("tcp4", address)
			return err
		})
		return conn, err
	}
	if conn, err := dial(); err == nil {
		conn.Close()
		t.Fatal("it reaches this machine's loopback")
	}
	h.Reach(t, address, nil, wire)
	near, err := dial()
	if err != nil {
		t.Fatal(err)
	}
	far, err := server.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer far.Close()
	says := func(from, to net.Conn, word string) error {
		if _, err := io.WriteString(from, word); err != nil {
			return err
		}
		_ = to.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
		got := make([]byte, len(word))
		_, err := io.ReadFull(to, got)
		if err == nil && string(got) != word {
			t.Fatalf("%q arrives as %q", word, got)
		}
		return err
	}
	for _, c := range []struct {
		cut      bool
		from, to net.Conn
	}{{false, near, far}, {false, far, near}} {
		if err := says(c.from, c.to, "hello"); err != nil {
			t.Fatal(err)
		}
	}
	wire.Cut()
	if err := says(near, far, "late"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("a cut wire: %v", err)
	}
	near.Close()
	wire.Mend()
	_ = far.SetReadDeadline(time.Now().Add(5 * time.Second))
	if rest, err := io.ReadAll(far); err != nil || string(rest) != "late" {
		t.Fatalf("after it was mended: %q, %v", rest, err)
	}
}
