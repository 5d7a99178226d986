package link

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
)

// pair makes both ends of a link.
func pair(t *testing.T) (a, b *Conn) {
	t.Helper()
	a, file, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	fd, err := syscall.Dup(int(file.Fd())) // as a child would inherit it
	if err != nil {
		t.Fatal(err)
	}
	if b, err = Open(uintptr(fd)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { a.Close(); b.Close() })
	return a, b
}

func start(config []byte) *controlv1.ToWorker {
	return &controlv1.ToWorker{Message: &controlv1.ToWorker_Start{Start: &controlv1.Start{ConfigJson: config}}}
}

func TestMessagesArriveWhole(t *testing.T) {
	a, b := pair(t)
	big := bytes.Repeat([]byte("0123456789"), 1<<20)
	var senders sync.WaitGroup
	for i := range 8 {
		senders.Go(func() {
			for range 5 {
				if err := a.Send(start(big[:i*1000_000])); err != nil {
					t.Error(err)
				}
			}
		})
	}
	seen := map[int]int{}
	for range 40 {
		m := &controlv1.ToWorker{}
		if err := b.Receive(m); err != nil {
			t.Fatal(err)
		}
		got := m.GetStart().ConfigJson
		if !bytes.Equal(got, big[:len(got)]) {
			t.Fatal("bytes are mixed up")
		}
		seen[len(got)]++
	}
	senders.Wait()
	if len(seen) != 8 {
		t.Errorf("seen %v", seen)
	}
	a.Close()
	if err := b.Receive(&controlv1.ToWorker{}); !errors.Is(err, io.EOF) {
		t.Errorf("got %v at the end", err)
	}
	if err := b.Send(start(nil)); err == nil {
		t.Error("sent to nobody")
	}
}

func TestDamage(t *testing.T) {
	head := func(n uint32) []byte { return binary.LittleEndian.AppendUint32(nil, n) }
	for _, c := range []struct {
		name  string
		bytes []byte
		check func(error) bool
	}{
		{"too long", head(MaxMessage + 1), func(err error) bool { return strings.Contains(err.Error(), "claims") }},
		{"cut off in the body", append(head(5), 1, 2), func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"cut off before the body", head(5), func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"cut off in the head", []byte{1}, func(err error) bool { return errors.Is(err, io.ErrUnexpectedEOF) }},
		{"no protobuf", append(head(2), 0xff, 0xff), func(err error) bool { return strings.Contains(err.Error(), "decode") }},
	} {
		a, b := pair(t)
		if _, err := a.conn.Write(c.bytes); err != nil {
			t.Fatal(err)
		}
		a.Close()
		if err := b.Receive(&controlv1.ToWorker{}); err == nil || !c.check(err) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
	a, _ := pair(t)
	if err := a.Send(start(make([]byte, MaxMessage+1))); err == nil || !strings.Contains(err.Error(), "too large") {
		t.Errorf("a message beyond the bound: %v", err)
	}
}

func TestOpenRefusesWhatIsNoLink(t *testing.T) {
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fd, err := syscall.Dup(int(f.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(uintptr(fd)); err == nil {
		t.Error("took /dev/null for a link")
	}
	if _, err := Open(9999); err == nil {
		t.Error("took a closed descriptor for a link")
	}
}

// A patient side bears a peer that is stopped: what does not get out is lost, what is partly
// out is completed, and once the peer reads again everything arrives.
func TestAPatientSideBearsASilentPeer(t *testing.T) {
	a, b := pair(t)
	a.Patient()
	big := bytes.Repeat([]byte("0123456789"), 1<<20) // more than a socket holds
	sent := 0
	for _, size := range []int{10, len(big), 20, 30} {
		switch err := a.Send(start(big[:size])); {
		case err == nil:
			sent++
		case !errors.Is(err, os.ErrDeadlineExceeded):
			t.Fatal(err)
		}
	}
	if sent != 1 {
		t.Fatalf("%d messages got out: the peer was not silent", sent)
	}
	received := make(chan int, 3)
	go func() {
		defer close(received)
		for range 3 {
			m := &controlv1.ToWorker{}
			if err := b.Receive(m); err != nil {
				t.Error(err)
				return
			}
			if got := m.GetStart().ConfigJson; !bytes.Equal(got, big[:len(got)]) {
				t.Errorf("a message of %d bytes is damaged", len(got))
			}
			received <- len(m.GetStart().ConfigJson)
		}
	}()
	for a.Send(start(big[:40])) != nil { // the rest may take longer than a message to a clogged link may
	}
	var sizes []int
	for n := range received {
		sizes = append(sizes, n)
	}
	if want := []int{10, len(big), 40}; !slices.Equal(sizes, want) {
		t.Errorf("messages of %v bytes, want %v", sizes, want)
	}
}

// Any other side gives up a peer that does not read.
func TestASilentPeerEndsTheLink(t *testing.T) {
	a, _ := pair(t)
	if err := a.Send(start(make([]byte, 16<<20))); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if err := a.Send(start(nil)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("%v, want a closed link", err)
	}
}
