package admin

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/iotest"
	"time"
)

func testCommands(context.Context) []Command {
	return []Command{
		{Prefix: "version", Help: "get ceph version", Run: func(context.Context, Args) (Answer, error) {
			v := NewObject("version")
			v.String("version", "1")
			return Answer{Value: v}, nil
		}},
		{Prefix: "0", Run: func(context.Context, Args) (Answer, error) { return Answer{Raw: []byte("2")}, nil }},
		{Prefix: "rbd mirror stop rbd/img", Help: "stop", Run: func(context.Context, Args) (Answer, error) { return Answer{}, nil }},
		{Prefix: "config set", Help: "set", Params: []Param{{Name: "var"}, {Name: "val", Many: true}, {Name: "why", Optional: true}},
			Run: func(_ context.Context, a Args) (Answer, error) {
				if a.First("var") == "nope" {
					return Answer{}, Errorf(syscall.ENOENT, "error setting 'nope'")
				}
				return Answer{Raw: []byte(a.First("var") + "=" + strings.Join(a["val"], " "))}, nil
			}},
		{Prefix: "die", Run: func(context.Context, Args) (Answer, error) { panic("ouch") }},
	}
}

func serve(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "asok")
	s, err := Listen(path, 0o750, testCommands)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Error("the socket was left behind:", err)
		}
	})
	return path
}

func dial(t *testing.T, path string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	_ = c.SetDeadline(time.Now().Add(30 * time.Second))
	return c
}

func reply(t *testing.T, c net.Conn) string {
	t.Helper()
	var n uint32
	if err := binary.Read(c, binary.BigEndian, &n); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c, b); err != nil {
		t.Fatal(err)
	}
	if rest, err := io.ReadAll(c); err != nil || len(rest) > 0 {
		t.Fatalf("%q follows the reply, %v", rest, err)
	}
	return string(b)
}

// The replies to what is wrong are those of rbd-mirror 16.2.15.
func TestProtocol(t *testing.T) {
	path := serve(t)
	for _, c := range []struct{ request, want string }{
		{"{\"prefix\":\"version\",\"format\":\"json\"}\x00", `{"version":"1"}`},
		{"{\"prefix\":\"version\",\"format\":\"json\"}\n", `{"version":"1"}`},
		{"{\"prefix\":\"version\"}\x00", "{\n    \"version\": \"1\"\n}\n"},
		{"{\"prefix\":\"0\"}\x00", "2"},
		{"\x00\x00\x00\x00", "2"},
		{"\x00\x00\x00\x03", "ERROR: (22) Invalid argument\nunknown command prefix foo\n"},
		{"{\"prefix\":\"nope\"}\x00", "ERROR: (22) Invalid argument\nunknown command prefix nope\n"},
		{"{}\x00", "ERROR: (22) Invalid argument\nunknown command prefix \n"},
		{"garbage\x00", "ERROR: (22) Invalid argument\ninvalid json\n"},
		{"[]\x00", "ERROR: (22) Invalid argument\ninvalid json\n"},
		{"{\"prefix\":1}\x00", "ERROR: (22) Invalid argument\ninvalid json, missing format and/or prefix\n"},
		{"{\"prefix\":\"config set\"}\x00", "ERROR: (22) Invalid argument\ninvalid command json\n"},
		{"{\"prefix\":\"config set\",\"var\":\"a\",\"val\":[\"b\",\"c\"]}\x00", "a=b c"},
		{"{\"prefix\":\"config set\",\"var\":\"a\",\"val\":7}\x00", "a=7"},
		{"{\"prefix\":\"config set\",\"var\":\"nope\",\"val\":\"b\"}\x00", "ERROR: (2) No such file or directory\nerror setting 'nope'\n"},
		{"{\"prefix\":\"die\"}\x00", "ERROR: (14) Bad address\npanic: ouch\n"},
		{"{\"prefix\":\"rbd mirror stop rbd/img\"}\x00", ""},
		{"{\"prefix\":\"help\",\"format\":\"json\"}\x00", `{"config set":"set","get_command_descriptions":"list available commands",` +
			`"help":"list available commands","rbd mirror stop rbd/img":"stop","version":"get ceph version"}`},
		{"{\"prefix\":\"get_command_descriptions\",\"format\":\"json\"}\x00", `{"cmd000":{"sig":["0"],"help":""},` +
			`"cmd001":{"sig":["config","set",{"name":"var","type":"CephString"},{"n":"N","name":"val","type":"CephString"},` +
			`{"name":"why","req":"false","type":"CephString"}],"help":"set"},"cmd002":{"sig":["die"],"help":""},` +
			`"cmd003":{"sig":["get_command_descriptions"],"help":"list available commands"},` +
			`"cmd004":{"sig":["help"],"help":"list available commands"},` +
			`"cmd005":{"sig":["rbd","mirror","stop","rbd/img"],"help":"stop"},"cmd006":{"sig":["version"],"help":"get ceph version"}}`},
	} {
		conn := dial(t, path)
		// In two parts, as a slow client would.
		half := len(c.request) / 2
		for _, part := range []string{c.request[:half], c.request[half:]} {
			if _, err := conn.Write([]byte(part)); err != nil {
				t.Fatal(err)
			}
		}
		if got := reply(t, conn); got != c.want {
			t.Errorf("%q:\n%q, want\n%q", c.request, got, c.want)
		}
	}
}

// Clients that never finish their request, that want nothing or too much, or that go away
// do not keep others from being answered.
func TestBadClientsAreBorne(t *testing.T) {
	path := serve(t)
	for range maxClients / 2 {
		if _, err := dial(t, path).Write([]byte(`{"prefix":`)); err != nil {
			t.Fatal(err)
		}
	}
	_ = dial(t, path).Close()
	long := dial(t, path)
	_, _ = long.Write(bytes.Repeat([]byte("x"), 2*maxRequest)) // it may be cut off
	if b, err := io.ReadAll(long); len(b) > 0 {
		t.Errorf("a request that is too long was answered: %q, %v", b, err)
	}
	var all sync.WaitGroup
	for range 4 * maxClients {
		all.Go(func() {
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			b, err := Ask(ctx, path, "version", nil)
			if err != nil || string(b) != `{"version":"1"}` {
				t.Errorf("%s, %v", b, err)
			}
		})
	}
	all.Wait()
}

func TestAskTellsErrors(t *testing.T) {
	path := serve(t)
	_, err := Ask(t.Context(), path, "config set", map[string]any{"var": "nope", "val": []string{"1"}})
	if !errors.Is(err, syscall.ENOENT) || err.Error() != "error setting 'nope'" {
		t.Errorf("%v", err)
	}
	if _, err := Ask(t.Context(), path+"x", "version", nil); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("no socket: %v", err)
	}
}

func TestListenReplacesOnlyTheDead(t *testing.T) {
	path := serve(t)
	if s, err := Listen(path, 0, testCommands); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("a second server: %v, %v", s, err)
	}
	stale := filepath.Join(t.TempDir(), "stale")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: stale})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	s, err := Listen(stale, 0o600, testCommands)
	if err != nil {
		t.Fatal(err)
	}
	if i, err := os.Stat(stale); err != nil || i.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", i, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Listen("/"+strings.Repeat("x", maxPath), 0, testCommands); err == nil {
		t.Error("a path that is too long was taken")
	}
}

// FuzzRequest: no bytes of a client panic or hang, and what is answered is bounded.
func FuzzRequest(f *testing.F) {
	for _, s := range []string{"{\"prefix\":\"version\"}\x00", "\x00\x00\x00\x01", "\x00", "", "{\"prefix\":null,\"a\":[1]}\n", "{\"prefix\":[]}\x00"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		whole, err := readRequest(bytes.NewReader(b))
		slow, slowErr := readRequest(iotest.OneByteReader(bytes.NewReader(b)))
		if (err == nil) != (slowErr == nil) || whole.Prefix != slow.Prefix {
			t.Fatalf("in one: %v %v; in pieces: %v %v", whole, err, slow, slowErr)
		}
		if err != nil {
			return
		}
		out := Execute(t.Context(), testCommands(t.Context()), whole)
		if len(out) > 1<<20 {
			t.Fatalf("%d bytes", len(out))
		}
		if whole.Prefix == "version" && whole.Format == JSON && !json.Valid(out) {
			t.Fatalf("%q", out)
		}
	})
}
