package admin

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// maxReply bounds a reply that Ask takes, in bytes.
const maxReply = 64 << 20

// Ask asks an admin socket, in JSON. A reply that tells of an error is an *Error with
// the errno that it names.
func Ask(ctx context.Context, path, prefix string, args map[string]any) ([]byte, error) {
	request := map[string]any{"prefix": prefix, "format": "json"}
	for k, v := range args {
		request[k] = v
	}
	b, err := json.Marshal(request)
	if err != nil {
		return nil, err
	}
	c, err := (&net.Dialer{}).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Now()) })
	defer stop()
	if _, err := c.Write(append(b, 0)); err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	var length uint32
	if err := binary.Read(c, binary.BigEndian, &length); err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	if length > maxReply {
		return nil, fmt.Errorf("admin socket %s: a reply of %d bytes", path, length)
	}
	reply := make([]byte, length)
	if _, err := io.ReadFull(c, reply); err != nil {
		return nil, fmt.Errorf("admin socket %s: %w", path, err)
	}
	return reply, failed(string(reply))
}

// failed is the error that a reply tells of.
func failed(reply string) error {
	rest, ok := strings.CutPrefix(reply, "ERROR: (")
	if !ok {
		return nil
	}
	first, text, _ := strings.Cut(rest, "\n")
	errno := syscall.EIO
	var n int
	if _, err := fmt.Sscanf(first, "%d)", &n); err == nil && n > 0 && n < 4096 {
		errno = syscall.Errno(n)
	}
	return &Error{errno, strings.TrimSpace(text)}
}
