// Package link carries messages between the daemon and a worker over a socket pair.
// A message is a little-endian u32 length and so many bytes of protobuf. The link is
// also a lifeline: when it ends, whoever is left knows that the other is gone.
package link

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"
)

// MaxMessage bounds a message, in bytes. A report of ten thousand images takes about
// ten million.
const MaxMessage = 64 << 20

// SendTimeout bounds a Send. A peer that reads nothing for so long is stuck, and
// its supervision, or the end of the link, will say so.
const SendTimeout = 5 * time.Second

// Conn is one end of a link. Send may be called by many goroutines, Receive by one.
type Conn struct {
	conn   net.Conn
	reader *bufio.Reader
	mu     sync.Mutex // one Send at a time, and guards what follows
	// patient: see Patient. rest is of a message that is partly out.
	patient bool
	rest    []byte
	clogged bool // the last message did not get out in time
}

// clogTimeout bounds a Send to a peer that was silent for SendTimeout already.
const clogTimeout = 50 * time.Millisecond

// Patient has Send bear a peer that reads nothing, as a process that is stopped: a message
// that does not get out in time is lost, and the link stays. It is for a side whose end
// must not depend on whether the other one gets on.
func (c *Conn) Patient() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.patient = true
}

// Pair makes a link. theirs is for a child process to inherit; the caller closes it
// once the child has it.
func Pair() (ours *Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, os.NewSyscallError("socketpair", err)
	}
	theirs = os.NewFile(uintptr(fds[1]), "link to daemon")
	ours, err = Open(uintptr(fds[0]))
	if err != nil {
		theirs.Close()
		return nil, nil, err
	}
	return ours, theirs, nil
}

// Open takes over an inherited end of a link.
func Open(fd uintptr) (*Conn, error) {
	f := os.NewFile(fd, "link")
	if f == nil {
		return nil, fmt.Errorf("file descriptor %d is not valid", fd)
	}
	defer f.Close() // net.FileConn makes its own copy
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("file descriptor %d is no link: %w", fd, err)
	}
	return &Conn{conn: c, reader: bufio.NewReader(c)}, nil
}

// Send sends a message. After an error the link is broken, or, if it is Patient and the
// error is os.ErrDeadlineExceeded, the message is lost.
func (c *Conn) Send(m proto.Message) error {
	body, err := proto.Marshal(m)
	if err != nil {
		return fmt.Errorf("encode message to link: %w", err)
	}
	if len(body) > MaxMessage {
		return fmt.Errorf("message of %d bytes is too large for the link", len(body))
	}
	frame := binary.LittleEndian.AppendUint32(make([]byte, 0, 4+len(body)), uint32(len(body)))
	frame = append(frame, body...)
	c.mu.Lock()
	defer c.mu.Unlock()
	timeout := SendTimeout
	if c.clogged {
		timeout = clogTimeout // whoever sends must not wait for long again
	}
	if err := c.conn.SetWriteDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if len(c.rest) > 0 {
		n, err := c.conn.Write(c.rest)
		if c.rest = c.rest[n:]; err != nil {
			return c.unsent(err)
		}
	}
	n, err := c.conn.Write(frame)
	if err != nil {
		if n > 0 {
			c.rest = frame[n:] // nothing can follow the part that is out but this
		}
		return c.unsent(err)
	}
	c.clogged = false
	return nil
}

// unsent decides what becomes of the link when a message did not get out.
func (c *Conn) unsent(err error) error {
	if c.patient && errors.Is(err, os.ErrDeadlineExceeded) {
		c.clogged = true
		return err
	}
	c.conn.Close()
	return err
}

// Receive waits for the next message and decodes it into m. io.EOF: the other side is
// gone. After any error the link is broken.
func (c *Conn) Receive(m proto.Message) error {
	var head [4]byte
	if _, err := io.ReadFull(c.reader, head[:]); err != nil {
		return err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > MaxMessage {
		return fmt.Errorf("a message on the link claims %d bytes", n)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(c.reader, body); err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return err
	}
	if err := proto.Unmarshal(body, m); err != nil {
		return fmt.Errorf("decode message from link: %w", err)
	}
	return nil
}

// Close ends the link.
func (c *Conn) Close() error { return c.conn.Close() }
