package main

import (
	"errors"
	"io"
	"os"
	"sync"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/config"
)

// logOutput is where a process's log lines go: to a file as JSON, one line an event,
// and for people to stderr, as configured.
type logOutput struct {
	mu   sync.Mutex
	path string // "": no file
	file *os.File
}

// timeFormat is that of Ceph's logs.
const timeFormat = "2006-01-02T15:04:05.000Z0700"

// openLog makes a process's logger. stderr is where lines for people go. If the file
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
	return zerolog.New(zerolog.MultiLevelWriter(writers...)).Level(logLevel(p.LogLevel)).
		With().Timestamp().Logger(), out, err
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
	if o.path == "" {
		return nil
	}
	f, err := os.OpenFile(o.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		return err
	}
	o.mu.Lock()
	old := o.file
	o.file = f
	o.mu.Unlock()
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
	return o.file.Write(b)
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
