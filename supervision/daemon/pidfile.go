package daemon

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrRunning says that another process holds the pid file.
var ErrRunning = errors.New("another daemon holds the pid file")

// PIDFile is a pid file that this process holds. It stays locked as long as the
// process lives, as Ceph's do (fcntl lock), so a file left behind by a dead process
// is no obstacle.
type PIDFile struct {
	path string
	file *os.File
}

// HoldPIDFile locks a pid file and writes this process's id into it. ErrRunning if
// somebody else has it. An empty path holds nothing.
func HoldPIDFile(path string) (*PIDFile, error) {
	if path == "" {
		return &PIDFile{}, nil
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open pid file: %w", err)
	}
	lock := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	err = unix.FcntlFlock(f.Fd(), unix.F_SETLK, &lock)
	if errors.Is(err, syscall.EAGAIN) || errors.Is(err, syscall.EACCES) {
		owner, _ := io.ReadAll(io.LimitReader(f, 32))
		f.Close()
		return nil, fmt.Errorf("%w %s (pid %s)", ErrRunning, path, strings.TrimSpace(string(owner)))
	}
	if err == nil {
		err = f.Truncate(0)
	}
	if err == nil {
		_, err = f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	}
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("write pid file %s: %w", path, err)
	}
	return &PIDFile{path: path, file: f}, nil
}

// Release removes the file, unless it is not the one any more that was locked, and
// unlocks it.
func (p *PIDFile) Release() error {
	if p.file == nil {
		return nil
	}
	// Removed before it is unlocked: nobody can take it in between.
	defer p.file.Close()
	ours, err := p.file.Stat()
	if err != nil {
		return err
	}
	there, err := os.Stat(p.path)
	if err != nil || !os.SameFile(ours, there) {
		return nil // somebody else took care of it
	}
	return os.Remove(p.path)
}
