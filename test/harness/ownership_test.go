package harness

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// logText writes an OSD's log as debug_ms = 1 makes it.
type logText struct {
	strings.Builder
	tids map[int]int
}

const own = "7f99 1 -- [v2:127.0.0.1:6800/25539,v1:127.0.0.1:6801/25539]"

func (l *logText) stamp() string {
	return time.Unix(1764000000, 0).UTC().Add(time.Duration(strings.Count(l.String(), "\n")) * time.Millisecond).
		Format("2006-01-02T15:04:05.000+0000")
}

// comes writes a request's line and answers its number.
func (l *logText) comes(client int) (tid int) {
	l.tids[client]++
	fmt.Fprintf(l, "%s %s <== client.%d 127.0.0.1:0/%d00 12 ==== osd_op(client.%d.0:%d 3.6 3.b74753e6 (undecoded) ondisk+write+known_if_redirected e12) v8 ==== 222+0+18 (crc 0 0 0) 0x7f con 0x7f\n",
		l.stamp(), own, client, client, client, l.tids[client])
	return l.tids[client]
}

// answer writes the answer's line.
func (l *logText) answer(client, tid int, object, steps string, version, result int) {
	fmt.Fprintf(l, "%s %s --> 127.0.0.1:0/%d00 -- osd_op_reply(%d %s [%s] v12'%d uv%d ondisk = %d) v8 -- 0x7f con 0x7f\n",
		l.stamp(), own, client, tid, object, steps, version, version, result)
}

func (l *logText) does(client int, object, steps string, version int) {
	l.answer(client, l.comes(client), object, steps, version, 0)
}

const (
	header = "rbd_header.10a1"
	first  = "rbd_data.10a1.0000000000000000"
	second = "rbd_data.10a1.0000000000000001"
	write  = "write 0~4096"
)

// TestOwnership: of stories that an OSD's log tells, those in which two have written are found, and no others.
func TestOwnership(t *testing.T) {
	for _, c := range []struct {
		name   string
		story  func(*logText)
		want   []string // words of each violation
		owners []string
	}{
		{"one after the other, and back", func(l *logText) {
			l.does(1, header, "stat,call", 1)
			l.does(1, first, write, 1)
			l.does(1, header, "call", 2)
			l.does(2, header, "stat,call", 3)
			l.does(2, first, write, 2)
			l.does(2, header, "call", 4)
			l.does(1, header, "stat,call", 5)
			l.does(1, "rbd_object_map.10a1", "call,call", 3)
		}, nil, []string{"client.1", "client.2", "client.1"}},
		{"the dead's last write is answered after its lock was broken", func(l *logText) {
			l.does(1, header, "stat,call", 1)
			late := l.comes(1)
			l.does(2, header, "call", 2)
			l.does(2, header, "stat,call", 3)
			l.answer(1, late, first, write, 1, 0)
			l.does(2, first, write, 2)
		}, nil, []string{"client.1", "client.2"}},
		{"a refused write, a read, a watch, another pool's image", func(l *logText) {
			l.does(1, header, "stat,call", 1)
			l.does(1, first, write, 1)
			l.does(2, header, "call", 2)
			l.does(2, header, "stat,call", 3)
			l.does(2, first, write, 2)
			l.answer(1, l.comes(1), first, write, 0, -108)
			l.answer(1, l.comes(1), first, "read 0~4096", 0, 0)
			l.does(1, header, "watch watch cookie 7", 4)
			l.does(2, first, write, 3)
		}, nil, []string{"client.1", "client.2"}},
		{"an answer that is lost and given again", func(l *logText) {
			l.does(1, header, "stat,call", 1)
			tid := l.comes(1)
			l.answer(1, tid, first, write, 1, 0)
			l.does(2, header, "call", 2)
			l.does(2, first, write, 2)
			l.tids[1]--
			l.answer(1, l.comes(1), first, write, 1, 0)
			l.does(2, first, write, 3)
		}, nil, []string{"client.1", "client.2"}},
		{"a late write of the old owner", func(l *logText) {
			l.does(1, header, "stat,call", 1)
			l.does(1, first, write, 1)
			l.does(2, header, "call", 2)
			l.does(2, header, "stat,call", 3)
			l.does(2, first, write, 2)
			l.does(1, second, write, 3)
		}, []string{"client.1 wrote [write 0~4096] to rbd_data.10a1.0000000000000001"}, []string{"client.1", "client.2", "client.1"}},
		{"a late write to the object map, in a data pool, before the new owner has written", func(l *logText) {
			l.does(1, header, "stat,call", 1)
			l.does(1, "rbd_data.3.10a1.0000000000000000", write, 1)
			l.does(2, header, "call", 2)
			l.does(1, "rbd_object_map.10a1.0000000000000004", "call", 2)
			l.does(2, first, write, 2)
		}, []string{"although client.2 had changed the lock"}, []string{"client.1", "client.2"}},
		{"a reader notes when it read", func(l *logText) {
			l.does(1, header, "stat,call", 1)
			l.does(1, first, write, 1)
			l.does(2, header, "call", 2)
			l.does(1, first, write, 2)
		}, nil, []string{"client.1"}},
		{"taken in time, written over a later owner's", func(l *logText) {
			l.does(1, header, "stat,call", 1)
			late := l.comes(1)
			l.does(2, header, "call", 2)
			l.does(2, first, write, 1)
			l.answer(1, late, first, write, 2, 0)
		}, []string{"on top of what client.2 wrote"}, []string{"client.2", "client.1"}},
		{"the same, told in the other order", func(l *logText) {
			l.does(1, header, "stat,call", 1)
			late := l.comes(1)
			l.does(2, header, "call", 2)
			tid := l.comes(2)
			l.answer(1, late, first, write, 2, 0)
			l.answer(2, tid, first, write, 1, 0)
		}, []string{"on top of what client.2 wrote"}, []string{"client.1", "client.2"}},
		{"another leader's write to the map", func(l *logText) {
			l.does(1, header, "stat,call", 1)
			l.does(1, first, write, 1)
			const take, share = "cmpxattr op 1 mode 1,call,setxattr (8)", "call,cmpxattr (1) op 1 mode 1,omap-set-vals,setxattr (1)"
			l.does(1, Leadership, take, 10)
			l.does(1, Leadership, share, 11)
			l.does(2, Leadership, "call", 12) // breaks it
			l.does(2, Leadership, take, 13)
			l.does(1, Leadership, share, 14)
			l.does(2, Leadership, share, 15)
		}, []string{"client.1 wrote [call,cmpxattr (1) op 1 mode 1,omap-set-vals"}, []string{"client.1"}},
		{"a write without a lock", func(l *logText) {
			l.does(1, header, "watch watch cookie 7", 1)
			l.does(1, first, "delete", 1)
		}, []string{"without ever having taken the lock"}, []string{"client.1"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			l := &logText{tids: map[int]int{}}
			c.story(l)
			o := newOwnership()
			text := l.String() + "2026-11-23T19:30:47.472+0000 half a line"
			size, err := newOSDLog().read(strings.NewReader(text), o.take)
			if err != nil || size != int64(l.Len()) {
				t.Fatalf("read %d of %d bytes, %v", size, l.Len(), err)
			}
			found := o.Violations()
			if len(found) != len(c.want) {
				t.Fatalf("found %q, want %q", found, c.want)
			}
			for n := range found {
				if !strings.Contains(found[n], c.want[n]) {
					t.Errorf("found %q, want %q", found[n], c.want[n])
				}
			}
			var owners []string
			for _, o := range o.Owners(3, "10a1") {
				owners = append(owners, o.Client)
			}
			if !slices.Equal(owners, c.owners) {
				t.Errorf("owners %v, want %v", owners, c.owners)
			}
			if len(o.Owners(4, "10a1")) > 0 {
				t.Error("an image of another pool")
			}
		})
	}
}

// TestOwnershipRefusesAnotherForm: a log that it cannot read is an error, not the absence of violations.
func TestOwnershipRefusesAnotherForm(t *testing.T) {
	for _, line := range []string{
		"2026 7f 1 -- own <== client.4 127.0.0.1:0/1 12 ==== osd_op(undecoded) v8",
		"2026 7f 1 -- own --> 127.0.0.1:0/1 -- osd_op_reply(7 rbd_data.1014.0 v21'9 uv9 ondisk = 0) v8",
		"2026 7f 1 -- own --> 127.0.0.1:0/1 -- osd_op_reply(7 rbd_data.1014.0 [write 0~4096] v21'9 uv9 ondisk = 0) v8",
		"2026-11-23T19:30:47.472+0000 7f 1 -- own --> 127.0.0.1:0/1 -- osd_op_reply(7 rbd_data.1014.0 [write 0~4096] v9 uv9 ondisk = 0) v8",
	} {
		if _, err := newOSDLog().read(strings.NewReader(line+"\n"), func(osdOp) {}); err == nil {
			t.Errorf("read: %s", line)
		}
	}
}
