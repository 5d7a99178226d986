package replay

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph/journal"
)

var rewrite = flag.Bool("rewrite", false, "write the outputs into the scripts under testdata")

// TestScripts plays the scripts in testdata: lines that start with ">" are commands,
// lines that start with "#" are remarks, and the rest is what the planner answers.
//
//	> config NAME=VALUE ...             a new planner: splay, step-bytes, step-ios,
//	                                    held-bytes, held-entries, in-flight, pending;
//	                                    covered (an entry of tag 0), open (an operation)
//	> tag N                             the next entries are of this tag
//	> push EVENT                        one entry; its number is the next of the tag
//	> next                              all steps that may start now
//	> safe ID ...                       steps that are durable
//	> outcome OP RESULT | no-outcome OP answers to need-outcome, in the current tag
//	> state                             position, memory, what is waited for
func TestScripts(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("scripts: %v %v", files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			old, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			got := play(t, string(old))
			if *rewrite {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(old), got); diff != "" {
				t.Errorf("(-script +now):\n%s", diff)
			}
		})
	}
}

func play(t *testing.T, script string) string {
	s := &stage{t: t, planner: New(Config{SplayWidth: 2})}
	for _, line := range strings.Split(strings.TrimRight(script, "\n"), "\n") {
		switch {
		case strings.HasPrefix(line, ">"):
			fmt.Fprintln(&s.out, line)
			s.command(strings.Fields(line[1:]))
		case line == "", strings.HasPrefix(line, "#"):
			fmt.Fprintln(&s.out, line)
		}
	}
	return s.out.String()
}

type stage struct {
	t       *testing.T
	out     strings.Builder
	planner *Planner
	tag     journal.TagTID
	tid     journal.EntryTID
}

func (s *stage) number(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		s.t.Fatalf("%q is no number", text)
	}
	return n
}

func (s *stage) command(words []string) {
	switch words[0] {
	case "config":
		s.config(words[1:])
	case "tag":
		s.tag, s.tid = journal.TagTID(s.number(words[1])), 0
	case "push":
		e := s.entry(words[1:])
		if err := s.planner.Push(e); err != nil {
			fmt.Fprintf(&s.out, "error: %v\n", err)
		}
	case "next":
		s.next()
	case "safe":
		for _, id := range words[1:] {
			s.planner.Safe(StepID(s.number(id)))
		}
	case "outcome":
		s.planner.Outcome(s.tag, journal.OpTID(s.number(words[1])), int32(s.number(words[2])))
	case "no-outcome":
		s.planner.NoOutcome(s.tag, journal.OpTID(s.number(words[1])))
	case "state":
		fmt.Fprintf(&s.out, "position=%v held=%d full=%v idle=%v waiting=%+v\n", s.planner.Position(),
			s.planner.Held(), s.planner.Full(), s.planner.Idle(), s.planner.Waiting())
	default:
		s.t.Fatalf("unknown command %q", words)
	}
}

func (s *stage) config(words []string) {
	cfg := Config{SplayWidth: 2}
	for _, w := range words {
		name, value, _ := strings.Cut(w, "=")
		n := s.number(value)
		switch name {
		case "splay":
			cfg.SplayWidth = uint8(n)
		case "step-bytes":
			cfg.StepBytes = n
		case "step-ios":
			cfg.StepIOs = n
		case "held-bytes":
			cfg.HeldBytes = n
		case "held-entries":
			cfg.HeldEntries = n
		case "in-flight":
			cfg.InFlight = n
		case "pending":
			cfg.Pending = n
		case "covered":
			cfg.Covered.At.Entry = journal.EntryTID(n)
		case "open":
			cfg.Covered.Open = append(cfg.Covered.Open, journal.OpTID(n))
		default:
			s.t.Fatalf("unknown setting %q", w)
		}
	}
	s.planner, s.tag, s.tid = New(cfg), 0, 0
}

func (s *stage) next() {
	for {
		step, ok := s.planner.Next()
		if !ok {
			break
		}
		fmt.Fprintf(&s.out, "%d: %v\n", step.ID(), step)
	}
	if err := s.planner.Err(); err != nil {
		fmt.Fprintf(&s.out, "error: %v\n", err)
	}
}

func (s *stage) entry(words []string) Entry {
	ev, bytes := s.event(words)
	e := Entry{
		Position: journal.ObjectPosition{Object: journal.ObjectNumber(s.tid % 2), Tag: s.tag, Entry: s.tid},
		Event:    ev,
		Bytes:    bytes,
	}
	s.tid++
	return e
}

func (s *stage) event(words []string) (ev journal.Event, bytes int) {
	arg := func(i int) string { return words[i] }
	op := func() journal.OpTID { return journal.OpTID(s.number(arg(1))) }
	extent := func() (uint64, uint64) {
		off, n, _ := strings.Cut(arg(1), "~")
		return uint64(s.number(off)), uint64(s.number(n))
	}
	switch words[0] {
	case "write":
		off, n := extent()
		return journal.AioWrite{Offset: off, Length: n, Data: make([]byte, n)}, int(n)
	case "short-write":
		off, n := extent()
		return journal.AioWrite{Offset: off, Length: n, Data: make([]byte, n-1)}, int(n)
	case "discard":
		off, n := extent()
		return journal.AioDiscard{Offset: off, Length: n}, 0
	case "writesame":
		off, n := extent()
		return journal.AioWriteSame{Offset: off, Length: n, Data: make([]byte, 2)}, 2
	case "caw":
		off, n := extent()
		return journal.AioCompareAndWrite{Offset: off, Length: n, CompareData: make([]byte, n), WriteData: make([]byte, n)}, int(2 * n)
	case "flush":
		return journal.AioFlush{}, 0
	case "demote-promote":
		return journal.DemotePromote{}, 0
	case "finish":
		return journal.OpFinish{Op: op(), Result: int32(s.number(arg(2)))}, 0
	case "snap-create":
		return journal.SnapCreate{Op: op(), Name: arg(2)}, 0
	case "snap-remove":
		return journal.SnapRemove{Op: op(), Name: arg(2)}, 0
	case "snap-rename":
		return journal.SnapRename{Op: op(), SnapID: 11, OldName: arg(2), NewName: arg(3)}, 0
	case "snap-protect":
		return journal.SnapProtect{Op: op(), Name: arg(2)}, 0
	case "snap-unprotect":
		return journal.SnapUnprotect{Op: op(), Name: arg(2)}, 0
	case "snap-rollback":
		return journal.SnapRollback{Op: op(), Name: arg(2)}, 0
	case "snap-limit":
		return journal.SnapLimit{Op: op(), Limit: uint64(s.number(arg(2)))}, 0
	case "rename":
		return journal.Rename{Op: op(), Name: arg(2)}, 0
	case "resize":
		return journal.Resize{Op: op(), Size: uint64(s.number(arg(2)))}, 0
	case "flatten":
		return journal.Flatten{Op: op()}, 0
	case "update-features":
		return journal.UpdateFeatures{Op: op(), Features: uint64(s.number(arg(2))), Enabled: true}, 0
	case "metadata-set":
		return journal.MetadataSet{Op: op(), Key: arg(2), Value: arg(3)}, 0
	case "metadata-remove":
		return journal.MetadataRemove{Op: op(), Key: arg(2)}, 0
	case "unknown":
		return journal.Unknown{EventType: journal.EventType(s.number(arg(1)))}, 0
	}
	s.t.Fatalf("unknown event %q", words)
	return nil, 0
}
