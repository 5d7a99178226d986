package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

// Sequences of terminals (ECMA-48, and xterm's other screen, which leaves what was there
// before as it was).
const (
	otherScreen = "\x1b[?1049h"
	firstScreen = "\x1b[?1049l"
	toTopLeft   = "\x1b[H"
	clearLine   = "\x1b[K"
	clearBelow  = "\x1b[J"
)

// watchFrames shows what draw prints, again and again, in place, until ctx ends or somebody
// interrupts. Where the output is no terminal each frame follows the one before.
func watchFrames(ctx context.Context, out io.Writer, interval time.Duration, draw func(ctx context.Context, out io.Writer) error) error {
	ctx, stop := signal.NotifyContext(ctx, syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	terminal, isFile := out.(*os.File)
	isTerminal := isFile && newScreen(out).terminal
	if isTerminal {
		fmt.Fprint(out, otherScreen)
		defer fmt.Fprint(out, firstScreen)
	}
	for {
		var frame bytes.Buffer
		if err := draw(ctx, &frame); err != nil && ctx.Err() == nil {
			fmt.Fprintln(&frame, "error:", err) // the daemon may be back in a moment
		}
		if ctx.Err() != nil {
			return nil
		}
		text := frame.String() + "\n"
		if isTerminal {
			width, height := 0, 0
			if size, err := unix.IoctlGetWinsize(int(terminal.Fd()), unix.TIOCGWINSZ); err == nil {
				width, height = int(size.Col), int(size.Row)
			}
			text = inPlace(frame.String(), width, height)
		}
		if _, err := io.WriteString(out, text); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(interval):
		}
	}
}

// inPlace makes a text one frame on a terminal: what does not fit is cut off, and what was
// there before is overwritten. A size of 0 is not known.
func inPlace(text string, width, height int) string {
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if height > 1 && len(lines) > height {
		cut := len(lines) - height + 1
		lines = append(lines[:height-1], fmt.Sprintf("(%d more lines)", cut))
	}
	var b strings.Builder
	b.WriteString(toTopLeft)
	for n, l := range lines {
		if n > 0 {
			b.WriteString("\r\n")
		}
		if width > 0 && utf8.RuneCountInString(l) > width {
			l = string([]rune(l)[:width])
		}
		b.WriteString(l + clearLine)
	}
	b.WriteString(clearBelow)
	return b.String()
}
