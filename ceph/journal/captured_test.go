package journal

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// The vectors in testdata were written by librbd and cls_journal of the release
// that the folder names, and captured by journal/capture_live_test.go; "padded" is
// from BlueStore with require_min_compat_client octopus, where appends are padded to
// 4096 bytes.

func TestCapturedValuesComeBack(t *testing.T) {
	types := map[string]string{
		"event": "librbd.journal.EventEntry", "client": "cls.journal.Client", "tag": "cls.journal.Tag",
		"clientdata": "librbd.journal.ClientData", "tagdata": "librbd.journal.TagData",
	}
	seen := map[string]bool{}
	files, err := filepath.Glob("testdata/*/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range files {
		kind, _, _ := strings.Cut(filepath.Base(name), ".")
		typ, ok := types[kind]
		if !ok {
			continue
		}
		seen[kind] = true
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		got, err := reencoders[typ](b)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		} else if !bytes.Equal(got, b) {
			t.Errorf("%s:\n got %x\nwant %x", name, got, b)
		}
	}
	for kind := range types {
		if !seen[kind] {
			t.Errorf("no vectors of %s", kind)
		}
	}
}

// TestCapturedObjects reads whole data objects: entries of one tag behind each
// other, with padding between appends where the cluster pads.
func TestCapturedObjects(t *testing.T) {
	files, err := filepath.Glob("testdata/*/object.*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	types, padded := map[EventType]int{}, 0
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(b); {
			e, n, err := DecodeEntry(b[at:])
			if err != nil {
				if n, err = Padding(b[at:], uint64(at)); err != nil || n == 0 {
					t.Fatalf("%s, offset %d: %v", name, at, err)
				}
				at, padded = at+n, padded+n
				continue
			}
			if again := Marshal(e); !bytes.Equal(again, b[at:at+n]) {
				t.Errorf("%s, offset %d: encoded differently", name, at)
			}
			v, err := DecodeEvent(e.Payload)
			if err != nil {
				t.Errorf("%s, offset %d: %v", name, at, err)
			} else {
				types[v.Event.Type()]++
			}
			at += n
		}
	}
	if len(types) < 10 || types[TypeAioWrite] == 0 || padded == 0 {
		t.Errorf("only %v, %d bytes of padding", types, padded)
	}
}

func TestCapturedObjectCutShortNeedsMore(t *testing.T) {
	b, err := os.ReadFile("testdata/pacific/object.0")
	if err != nil {
		t.Fatal(err)
	}
	_, n, err := DecodeEntry(b)
	if err != nil {
		t.Fatal(err)
	}
	var more NeedMore
	if _, _, err := DecodeEntry(b[:n-1]); !errors.As(err, &more) || more != 1 {
		t.Fatalf("%v, want to need 1", err)
	}
}
