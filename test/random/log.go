package random

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// Log is the file that tells of every operation and fault with its time.
type Log struct {
	mu   sync.Mutex
	file *os.File
}

// openLog makes the file. It goes with a test that passes; a test that fails prints where it is.
func openLog(t testing.TB, seed uint64) *Log {
	dir := os.Getenv("WARDEN_TEST_LOGS")
	if dir == "" {
		dir = filepath.Join(os.TempDir(), "rbd-warden-test-logs")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("random-%d-%s.log", seed, time.Now().UTC().Format("150405"))
	file, err := os.Create(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	l := &Log{file: file}
	t.Cleanup(func() {
		file.Close()
		if t.Failed() {
			t.Logf("operations and faults are in %s; to repeat their sequence: -seed %d", file.Name(), seed)
			return
		}
		os.Remove(file.Name())
	})
	return l
}

// Printf writes a line: time, who, what.
func (l *Log) Printf(who, format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(l.file, "%s %-8s %s\n", time.Now().UTC().Format("15:04:05.000"), who, fmt.Sprintf(format, args...))
}

// witness is a test that also tells the log what went wrong.
type witness struct {
	testing.TB
	log *Log
	who string
}

const longest = 2000 // bytes of a complaint

func (w witness) Error(args ...any) {
	w.TB.Helper()
	text := fmt.Sprint(args...)
	if len(text) > longest { // a program that crashed says a lot
		text = text[:longest] + " ..."
	}
	w.log.Printf(w.who, "FAILED: %s", text)
	w.TB.Error(w.who + ": " + text)
}

func (w witness) Errorf(format string, args ...any) {
	w.TB.Helper()
	w.Error(fmt.Sprintf(format, args...))
}

func (w witness) Fatal(args ...any) {
	w.TB.Helper()
	w.Error(args...)
	w.TB.FailNow()
}

func (w witness) Fatalf(format string, args ...any) {
	w.TB.Helper()
	w.Error(fmt.Sprintf(format, args...))
	w.TB.FailNow()
}
