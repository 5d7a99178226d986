package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/config"
)

// logOutput is the log file of a process. It is opened again when it was moved away,
// also without a signal: programs that rotate logs signal processes by names, and
// may not know ours.
type logOutput struct {
	path string // "": no file

	mu      sync.Mutex
	file    *os.File
	checked time.Time // when it was last known to be the file at path
}

// recheck is how long a log file is taken to be where it was.
const recheck = time.Second

// timeFormat is that of Ceph's logs.
const timeFormat = "2006-01-02T15:04:05.000Z0700"

// openLog makes a process's logger: to the log file as JSON, one line an event, and
// for people to stderr, as configured. stderr is where lines for people go. If the file
// cannot be opened, all goes there, and the error tells why.
func openLog(p config.Process, stderr io.Writer) (zerolog.Logger, *logOutput, error) {
	out := &logOutput{path: p.LogFile}
	err := out.Reopen()
	zerolog.TimeFieldFormat = timeFormat
	human := zerolog.ConsoleWriter{Out: stderr, NoColor: true, TimeFormat: timeFormat}
	if p.LogPrefix != "" {
		human.Out = prefixed{p.LogPrefix, stderr}
	}
	var writers []io.Writer
	if out.file != nil {
		writers = append(writers, out)
	}
	switch {
	case p.LogToStderr, err != nil:
		writers = append(writers, human)
	case p.ErrToStderr:
		writers = append(writers, &zerolog.FilteredLevelWriter{
			Writer: zerolog.LevelWriterAdapter{Writer: human}, Level: zerolog.ErrorLevel,
		})
	}
	zerolog.SetGlobalLevel(logLevel(p.LogLevel)) // it can be changed while we run
	return zerolog.New(zerolog.MultiLevelWriter(writers...)).With().Timestamp().Logger(), out, err
}

// logLevel translates debug_rbd_mirror.
func logLevel(ceph int) zerolog.Level {
	switch {
	case ceph >= 20:
		return zerolog.TraceLevel
	case ceph >= 10:
		return zerolog.DebugLevel
	}
	return zerolog.InfoLevel
}

// Reopen opens the file again, after it was moved away. Upon an error the old one
// stays in use.
func (o *logOutput) Reopen() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.reopen()
}

func (o *logOutput) reopen() error {
	o.checked = time.Now()
	if o.path == "" {
		return nil
	}
	f, err := os.OpenFile(o.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	old := o.file
	o.file = f
	if old != nil {
		return old.Close()
	}
	return nil
}

// Write appends a line to the file. Each line is one write, so the lines of several
// processes do not mix.
func (o *logOutput) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.file == nil {
		return 0, errors.New("no log file is open")
	}
	if time.Since(o.checked) >= recheck && o.moved() {
		if err := o.reopen(); err != nil {
			// The line goes to the old file; the next check tries again.
			_, _ = fmt.Fprintf(o.file, "{\"level\":\"warn\",\"error\":%q,\"message\":\"cannot open log file again\"}\n", err)
		}
	}
	return o.file.Write(b)
}

// moved tells whether the file at path is another one than the open one.
func (o *logOutput) moved() bool {
	o.checked = time.Now()
	there, err := os.Stat(o.path)
	if err != nil {
		return errors.Is(err, os.ErrNotExist)
	}
	ours, err := o.file.Stat()
	return err == nil && !os.SameFile(there, ours)
}

// prefixed puts a prefix before each write.
type prefixed struct {
	prefix string
	w      io.Writer
}

func (p prefixed) Write(b []byte) (int, error) {
	if _, err := p.w.Write(append([]byte(p.prefix), b...)); err != nil {
		return 0, err
	}
	return len(b), nil
}
