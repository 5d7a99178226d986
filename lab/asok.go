package lab

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
)

// answerMax bounds an admin socket's answer, in bytes.
const answerMax = 64 << 20

// Admin sends a command to a Ceph admin socket and answers what came back. The protocol: a JSON object ended by NUL
// goes out; a big-endian u32 length and that many bytes come back. (src/common/admin_socket.cc)
func Admin(ctx context.Context, socket string, command map[string]any) ([]byte, error) {
	request, err := json.Marshal(command)
	if err != nil {
		return nil, err
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return nil, err
		}
	}
	if _, err := conn.Write(append(request, 0)); err != nil {
		return nil, err
	}
	var length uint32
	if err := binary.Read(conn, binary.BigEndian, &length); err != nil {
		return nil, err
	}
	if length > answerMax {
		return nil, fmt.Errorf("admin socket %s: answer of %d bytes", socket, length)
	}
	answer := make([]byte, length)
	_, err = io.ReadFull(conn, answer)
	return answer, err
}
