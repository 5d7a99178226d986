package journal

import (
	"fmt"
	"testing"

	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
)

// at makes an entry of a tag, in an object.
func at(object wire.ObjectNumber, tag wire.TagTID, tid wire.EntryTID) Entry {
	return Entry{Position: wire.ObjectPosition{Object: object, Tag: tag, Entry: tid}}
}

// run takes steps until the merge needs something or finds something bad, and
// tells what came: "tag/entry", "end tag/entries", "need offset", "bad ...".
func run(m *merge) (got []string) {
	for {
		switch s := m.nextStep(); {
		case s.entry != nil:
			got = append(got, fmt.Sprintf("%d/%d", s.entry.Position.Tag, s.entry.Position.Entry))
		case s.ended != nil:
			got = append(got, fmt.Sprintf("end %d/%d", s.ended.Tag, s.ended.Entries))
		case s.bad != nil:
			return append(got, fmt.Sprintf("bad %d/%d for %d/%d",
				s.bad.found.Position.Tag, s.bad.found.Position.Entry, s.bad.due.Tag, s.bad.due.Entry))
		default:
			return append(got, fmt.Sprintf("need %d", *s.need))
		}
	}
}

func TestMerge(t *testing.T) {
	for _, c := range []struct {
		name      string
		width     uint8
		committed wire.ObjectSetPosition
		feed      map[uint8][]Entry
		want      []string
		dropped   uint64
	}{
		{
			name: "round robin", width: 2,
			feed: map[uint8][]Entry{0: {at(0, 3, 0), at(0, 3, 2)}, 1: {at(1, 3, 1)}},
			want: []string{"3/0", "3/1", "3/2", "need 1"},
		},
		{
			name: "nothing yet", width: 2,
			want: []string{"need 0"},
		},
		{
			name: "first entry not there yet", width: 2,
			feed: map[uint8][]Entry{1: {at(1, 3, 1)}},
			want: []string{"need 0"},
		},
		{
			name: "from a commit position", width: 2,
			committed: wire.ObjectSetPosition{{Object: 1, Tag: 3, Entry: 1}, {Object: 0, Tag: 3, Entry: 0}},
			feed:      map[uint8][]Entry{0: {at(0, 3, 0), at(0, 3, 2)}, 1: {at(1, 3, 1), at(1, 3, 3)}},
			want:      []string{"3/2", "3/3", "need 0"},
		},
		{
			name: "committed entries of an older tag are not dropped data", width: 2,
			committed: wire.ObjectSetPosition{{Object: 0, Tag: 4, Entry: 0}, {Object: 1, Tag: 3, Entry: 1}},
			feed:      map[uint8][]Entry{0: {at(0, 3, 0), at(0, 4, 0)}, 1: {at(1, 3, 1), at(1, 4, 1)}},
			want:      []string{"4/1", "need 0"},
		},
		{
			name: "a newer tag where the next entry was due", width: 2,
			feed: map[uint8][]Entry{0: {at(0, 3, 0), at(0, 4, 0), at(0, 4, 2)}, 1: {at(1, 3, 1), at(1, 4, 1)}},
			want: []string{"3/0", "3/1", "end 3/2", "4/0", "4/1", "4/2", "need 1"},
		},
		{
			name: "a hole at a tag's tail", width: 3,
			// 3/1 was lost; 3/2 and 3/5 were written behind it.
			feed: map[uint8][]Entry{0: {at(0, 3, 0)}, 1: {at(1, 5, 1)}, 2: {at(2, 3, 2), at(2, 3, 5), at(2, 5, 2)}},
			want: []string{"3/0", "end 3/1", "need 0"}, dropped: 2,
		},
		{
			name: "a hole while no newer tag is seen", width: 2,
			feed: map[uint8][]Entry{0: {at(0, 3, 0), at(0, 3, 2)}},
			want: []string{"3/0", "need 1"},
		},
		{
			name: "a tag whose first entry was lost", width: 2,
			feed: map[uint8][]Entry{0: {at(0, 3, 0), at(0, 5, 0)}, 1: {at(1, 4, 1), at(1, 5, 1)}},
			want: []string{"3/0", "end 3/1", "5/0", "5/1", "need 0"}, dropped: 1,
		},
		{
			name: "an entry missing within an object", width: 2,
			feed: map[uint8][]Entry{0: {at(0, 3, 0), at(0, 3, 4)}, 1: {at(1, 3, 1)}},
			want: []string{"3/0", "3/1", "bad 3/4 for 3/2"},
		},
		{
			name: "an entry twice", width: 2,
			feed: map[uint8][]Entry{0: {at(0, 3, 0), at(0, 3, 0)}, 1: {at(1, 3, 1)}},
			want: []string{"3/0", "3/1", "bad 3/0 for 3/2"},
		},
		{
			name: "a tag that does not begin with its first entry", width: 2,
			feed: map[uint8][]Entry{0: {at(0, 3, 2)}},
			want: []string{"bad 3/2 for 3/0"},
		},
		{
			name: "width 1", width: 1,
			feed: map[uint8][]Entry{0: {at(0, 0, 0), at(0, 0, 1), at(0, 2, 0)}},
			want: []string{"0/0", "0/1", "end 0/2", "2/0", "need 0"},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newMerge(c.width, c.committed)
			for o, entries := range c.feed {
				m.feed(o, entries)
			}
			if got := run(m); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Errorf("\n got %q\nwant %q", got, c.want)
			}
			if d := m.takeDropped(); d.Count != c.dropped {
				t.Errorf("dropped %+v, want %d", d, c.dropped)
			}
		})
	}
}

func TestMergeEndTag(t *testing.T) {
	m := newMerge(2, nil)
	m.feed(0, []Entry{at(0, 3, 0), at(0, 3, 2)})
	run(m)
	if end := m.endTag(); *end != (EndOfTag{Tag: 3, Entries: 1}) {
		t.Fatalf("%+v", end)
	}
	if d := m.takeDropped(); d.Count != 1 || d.First.Entry != 2 {
		t.Fatalf("dropped %+v", d)
	}
	m.feed(0, []Entry{at(0, 4, 0)})
	m.feed(1, []Entry{at(1, 3, 3), at(1, 4, 1)}) // read only now
	if got := run(m); fmt.Sprint(got) != "[4/0 4/1 need 0]" {
		t.Fatal(got)
	}
	if d := m.takeDropped(); d.Count != 1 || d.Last.Entry != 3 {
		t.Fatalf("dropped %+v", d)
	}
}
