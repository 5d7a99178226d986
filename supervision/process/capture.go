package process

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"sync"
)

// Bounds of what is kept of a worker's stderr, in bytes.
const (
	maxCrash = 8 << 10
	maxTail  = 4 << 10
	maxLine  = 16 << 10
)

// capture reads what a process writes to stderr: it hands every line to a function
// and keeps what explains a crash. A crash's first lines tell why; its last lines may
// be those of the thousandth goroutine, so both are kept.
type capture struct {
	mu    sync.Mutex
	crash strings.Builder
	tail  string
	done  chan struct{}
}

// newCapture reads r until it ends.
func newCapture(r io.Reader, line func(string)) *capture {
	c := &capture{done: make(chan struct{})}
	go func() {
		defer close(c.done)
		br := bufio.NewReaderSize(r, maxLine)
		for {
			b, more, err := br.ReadLine()
			if len(b) > 0 {
				s := strings.ToValidUTF8(string(b), "\uFFFD")
				c.keep(s)
				line(s)
			}
			for more && err == nil { // the rest of a line beyond all measure
				_, more, err = br.ReadLine()
			}
			if err != nil {
				// Not io.EOF alone: after a broken pipe there is no more either.
				if !errors.Is(err, io.EOF) {
					line("stderr is unreadable: " + err.Error())
				}
				return
			}
		}
	}()
	return c
}

func (c *capture) keep(line string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if (c.crash.Len() > 0 || isCrashStart(line)) && c.crash.Len()+len(line) < maxCrash {
		c.crash.WriteString(line)
		c.crash.WriteByte('\n')
	}
	c.tail += line + "\n"
	if over := len(c.tail) - maxTail; over > 0 {
		c.tail = c.tail[over:]
	}
}

// kept is what was kept so far.
func (c *capture) kept() (crash, tail string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.TrimRight(c.crash.String(), "\n"), c.tail
}
