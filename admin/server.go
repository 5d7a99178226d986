package admin

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// maxPath is the longest path that a unix socket can have, in bytes.
const maxPath = 107

// Bounds of a server. A client that asks slowly, or does not read its reply, holds
// nothing but its own connection, and that for a while only.
const (
	maxClients   = 32
	askTimeout   = 10 * time.Second // for the whole request
	runTimeout   = 30 * time.Second // for the command
	replyTimeout = 10 * time.Second // for the client to take the reply
)

// Server answers on an admin socket.
type Server struct {
	listener net.Listener
	commands func(ctx context.Context) []Command
	slots    chan struct{}
	ctx      context.Context
	cancel   context.CancelFunc
	clients  sync.WaitGroup
}

// Listen makes the socket and answers there. commands lists what can be asked for at
// the moment. mode are the socket's permissions; 0 leaves them to the umask. A file that
// a dead process left is replaced; a socket that somebody listens on is an error.
func Listen(path string, mode os.FileMode, commands func(ctx context.Context) []Command) (*Server, error) {
	if len(path) > maxPath {
		return nil, fmt.Errorf("the path of the admin socket has more than %d bytes: %s", maxPath, path)
	}
	l, err := net.Listen("unix", path)
	if errors.Is(err, syscall.EADDRINUSE) {
		if InUse(path) {
			return nil, fmt.Errorf("admin socket %s: %w", path, syscall.EEXIST)
		}
		if err := os.Remove(path); err != nil {
			return nil, err
		}
		l, err = net.Listen("unix", path)
	}
	if err != nil {
		return nil, err
	}
	if mode != 0 {
		if err := os.Chmod(path, mode); err != nil {
			return nil, errors.Join(err, l.Close())
		}
	}
	s := &Server{listener: l, commands: commands, slots: make(chan struct{}, maxClients)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.clients.Go(s.accept)
	return s, nil
}

// InUse tells whether somebody listens on a socket. One that we may not connect to counts
// as in use.
func InUse(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		_ = c.Close()
		return true
	}
	return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOENT)
}

// Close ends the service and removes the socket. Commands under way are cancelled.
func (s *Server) Close() error {
	if s == nil {
		return nil
	}
	s.cancel()
	err := s.listener.Close() // removes the file, too
	s.clients.Wait()
	return err
}

// accept takes clients. Those beyond maxClients wait in the kernel's queue.
func (s *Server) accept() {
	for {
		select {
		case s.slots <- struct{}{}:
		case <-s.ctx.Done():
			return
		}
		c, err := s.listener.Accept()
		if err != nil {
			if s.ctx.Err() != nil || errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors or memory: it will pass.
			<-s.slots
			select {
			case <-time.After(100 * time.Millisecond):
			case <-s.ctx.Done():
			}
			continue
		}
		s.clients.Go(func() {
			defer func() { <-s.slots }()
			defer c.Close()
			s.serve(c)
		})
	}
}

// serve answers one request. A client that says nothing that can be answered is left.
func (s *Server) serve(c net.Conn) {
	stop := context.AfterFunc(s.ctx, func() { _ = c.SetDeadline(time.Now()) })
	defer stop()
	_ = c.SetReadDeadline(time.Now().Add(askTimeout))
	r, err := readRequest(c)
	var refused *Error
	var reply []byte
	switch {
	case errors.As(err, &refused):
		reply = failure(err)
	case err != nil:
		return
	default:
		ctx, cancel := context.WithTimeout(s.ctx, runTimeout)
		defer cancel()
		reply = Execute(ctx, s.commands(ctx), r)
	}
	if s.ctx.Err() != nil {
		return
	}
	_ = c.SetWriteDeadline(time.Now().Add(replyTimeout))
	message := binary.BigEndian.AppendUint32(make([]byte, 0, 4+len(reply)), uint32(len(reply)))
	// Who has gone away misses the answer.
	_, _ = c.Write(append(message, reply...))
}

// failure is an error as text, the only form that the protocol has for one.
func failure(err error) []byte {
	errno := syscall.EIO
	errors.As(err, &errno)
	return fmt.Appendf(nil, "ERROR: %s\n%s\n", Strerror(errno), err)
}
