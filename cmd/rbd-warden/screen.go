package main

import (
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rbdwarden/rbdwarden/report"
)

// screen prints the demo's course: titles, notes, and one line that changes in place where the output is a terminal.
// Elsewhere a changed line is a new line.
type screen struct {
	mutex    sync.Mutex
	out      io.Writer
	terminal bool
	current  string // what the line that changes in place says
}

func newScreen(out io.Writer) *screen {
	s := &screen{out: out}
	if file, ok := out.(*os.File); ok {
		info, err := file.Stat()
		s.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return s
}

// title begins an act.
func (s *screen) title(format string, args ...any) {
	s.print("\n== " + fmt.Sprintf(format, args...))
}

// note prints a line that stays.
func (s *screen) note(format string, args ...any) {
	s.print("   " + fmt.Sprintf(format, args...))
}

func (s *screen) print(line string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.breakLine()
	fmt.Fprintln(s.out, line)
}

// live shows how things are, in place of what it last showed, with the time since an act began. Where the output is no
// terminal only a change makes a new line.
func (s *screen) live(after time.Duration, text string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	line := fmt.Sprintf("   %5.1fs  %s", after.Seconds(), text)
	switch {
	case s.terminal:
		fmt.Fprintf(s.out, "\r\x1b[K%s", line)
	case text != s.current:
		fmt.Fprintln(s.out, line)
	}
	s.current = text
}

// settle lets the live line stay as it is.
func (s *screen) settle() {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	s.breakLine()
}

func (s *screen) breakLine() {
	if s.current != "" && s.terminal {
		fmt.Fprintln(s.out)
	}
	s.current = ""
}

// progressLine tells in one line how the images are.
func progressLine(images []report.Image) string {
	if len(images) == 0 {
		return "the daemon looks for images"
	}
	slices.SortFunc(images, func(a, b report.Image) int { return strings.Compare(a.Name, b.Name) })
	var parts []string
	for _, image := range images {
		name := image.Name
		if name == "" {
			name = "(new)"
		}
		parts = append(parts, fmt.Sprintf("%-8s %-36s", name, imageProgress(image)))
	}
	return strings.TrimRight(strings.Join(parts, "  "), " ")
}

// imageProgress tells in a few words how an image is.
func imageProgress(image report.Image) string {
	switch {
	case image.State == "replaying" && image.EntriesBehind == 0:
		return "replaying, nothing behind"
	case image.State == "replaying":
		return fmt.Sprintf("%d entries (%.1f s) behind, %s/s", image.EntriesBehind, max(0, image.LagSeconds),
			bytesText(int64(image.BytesPerSecond)))
	case image.SyncPercent >= 0 && image.State == "syncing":
		return fmt.Sprintf("first copy %.0f %%", image.SyncPercent)
	}
	return strings.ToLower(strings.ReplaceAll(image.State, "_", " "))
}
