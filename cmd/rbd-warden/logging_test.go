package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/config"
)

func read(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestLogFollowsARotationWithoutASignal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log")
	log, out, err := openLog(config.Process{LogFile: path}, os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	log.Info().Msg("one")
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	log.Info().Msg("two") // too soon to have looked
	out.checked = time.Now().Add(-recheck)
	log.Info().Msg("three")
	out.checked = time.Now().Add(-recheck)
	log.Info().Msg("four")
	old, now := read(t, path+".1"), read(t, path)
	if !strings.Contains(old, "one") || !strings.Contains(old, "two") || strings.Contains(old, "three") {
		t.Errorf("the old file: %s", old)
	}
	if !strings.Contains(now, "three") || !strings.Contains(now, "four") || strings.Count(now, "\n") != 2 {
		t.Errorf("the new file: %s", now)
	}
	// A directory that is gone loses no line.
	if err := os.Rename(filepath.Dir(path), filepath.Dir(path)+".old"); err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(filepath.Dir(path) + ".old")
	out.checked = time.Now().Add(-recheck)
	log.Info().Msg("five")
	if kept := read(t, filepath.Join(filepath.Dir(path)+".old", "log")); !strings.Contains(kept, "five") ||
		!strings.Contains(kept, "cannot open log file again") {
		t.Errorf("kept: %s", kept)
	}
}

func TestLogDestinations(t *testing.T) {
	for _, c := range []struct {
		name                string
		process             config.Process
		infoFile, infoHuman bool
		errFile, errHuman   bool
	}{
		{"file", config.Process{LogFile: "log"}, true, false, true, false},
		{"file, errors to stderr", config.Process{LogFile: "log", ErrToStderr: true}, true, false, true, true},
		{"both", config.Process{LogFile: "log", LogToStderr: true, ErrToStderr: true}, true, true, true, true},
		{"stderr", config.Process{LogToStderr: true}, false, true, false, true},
		{"a file that cannot be", config.Process{LogFile: "no/such/dir/log"}, false, true, false, true},
		{"a container", config.Process{LogToStderr: true, LogPrefix: "debug "}, false, true, false, true},
	} {
		var human bytes.Buffer
		file := ""
		if c.process.LogFile != "" {
			file = filepath.Join(t.TempDir(), c.process.LogFile)
			c.process.LogFile = file
		}
		log, _, err := openLog(c.process, &human)
		if (err != nil) != (c.name == "a file that cannot be") {
			t.Errorf("%s: %v", c.name, err)
		}
		log.Info().Msg("an event")
		log.Error().Msg("a failure")
		log.Debug().Msg("a detail")
		var text string
		if data, err := os.ReadFile(file); err == nil {
			text = string(data)
		}
		for _, x := range []struct {
			what, where string
			want        bool
		}{{"an event", text, c.infoFile}, {"an event", human.String(), c.infoHuman},
			{"a failure", text, c.errFile}, {"a failure", human.String(), c.errHuman},
			{"a detail", text + human.String(), false}} {
			if strings.Contains(x.where, x.what) != x.want {
				t.Errorf("%s: %q in %q: want %v", c.name, x.what, x.where, x.want)
			}
		}
		for line := range strings.Lines(human.String()) {
			if !strings.HasPrefix(line, c.process.LogPrefix) {
				t.Errorf("%s: no prefix: %s", c.name, line)
			}
		}
	}
}

func TestLogLevel(t *testing.T) {
	for level, want := range map[int]zerolog.Level{0: zerolog.InfoLevel, 5: zerolog.InfoLevel, 10: zerolog.DebugLevel,
		19: zerolog.DebugLevel, 20: zerolog.TraceLevel, 99: zerolog.TraceLevel} {
		if got := logLevel(level); got != want {
			t.Errorf("%d: got %v, want %v", level, got, want)
		}
	}
}
