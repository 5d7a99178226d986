package admin

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"syscall"
)

// maxRequest bounds a request, in bytes. Ceph's own daemons take 1024.
const maxRequest = 64 << 10

// Args are a request's arguments by name.
type Args map[string][]string

// First is the first value of an argument, "" if there is none.
func (a Args) First(name string) string {
	if len(a[name]) == 0 {
		return ""
	}
	return a[name][0]
}

// Request is what a client asks.
type Request struct {
	Prefix string
	Format Format
	Args   Args
}

// errTooLong ends a connection without a reply.
var errTooLong = errors.New("the request is too long")

// oldForm are the commands of requests that are a big-endian u32.
var oldForm = [...]string{"0", "perfcounters_dump", "perfcounters_schema"}

// readRequest reads one request, up to the byte that ends it.
func readRequest(r io.Reader) (Request, error) {
	var b []byte
	for chunk := make([]byte, 512); ; {
		n, err := r.Read(chunk)
		b = append(b, chunk[:n]...)
		switch end := bytes.IndexAny(b, "\x00\n"); {
		case len(b) > 0 && b[0] == 0:
			if len(b) >= 4 {
				return oldRequest(b[3]), nil
			}
		case end >= 0:
			return ParseRequest(b[:end])
		case len(b) > maxRequest:
			return Request{}, errTooLong
		}
		if err != nil {
			return Request{}, err
		}
	}
}

func oldRequest(number byte) Request {
	r := Request{Prefix: "foo", Format: JSONPretty} // Ceph's name of what is not known
	if int(number) < len(oldForm) {
		r.Prefix = oldForm[number]
	}
	return r
}

// ParseRequest understands a request, without the byte that ended it. An error is an
// *Error for the client.
func ParseRequest(b []byte) (Request, error) {
	var fields map[string]json.RawMessage
	if err := json.Unmarshal(b, &fields); err != nil || fields == nil {
		return Request{}, Errorf(syscall.EINVAL, "invalid json")
	}
	r := Request{Args: Args{}}
	for name, raw := range fields {
		var many []string
		var one string
		switch {
		case json.Unmarshal(raw, &one) == nil:
			many = []string{one}
		case json.Unmarshal(raw, &many) == nil:
		case name == "prefix" || name == "format":
			return Request{}, Errorf(syscall.EINVAL, "invalid json, missing format and/or prefix")
		default:
			// A number or a truth value, as some clients write them.
			many = []string{string(raw)}
		}
		r.Args[name] = many
	}
	r.Prefix, r.Format = r.Args.First("prefix"), FormatOf(r.Args.First("format"))
	delete(r.Args, "prefix")
	delete(r.Args, "format")
	return r, nil
}
