//go:build live

package live

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/lab"
	"github.com/rbdwarden/rbdwarden/test/harness"
)

// An entry in a journal's data object: u64 preamble, u8 version, u64 entry, u64 tag, u32 length, payload, u32 checksum.
const (
	lengthAt  = 25
	payloadAt = 29
	// eventTypeAt is where in the payload its event's type is: behind version, compatible version and u32 length.
	eventTypeAt = payloadAt + 6
)

// damages are ways to spoil an entry in a journal's data object. Each answers the object's new data.
var damages = map[string]func(t *testing.T, data []byte, entry harness.PlacedEntry) []byte{
	"flipped-payload": func(_ *testing.T, data []byte, e harness.PlacedEntry) []byte {
		data[e.Offset+payloadAt+e.Size/2] ^= 0x01
		return data
	},
	"flipped-preamble": func(_ *testing.T, data []byte, e harness.PlacedEntry) []byte {
		data[e.Offset] ^= 0x80
		return data
	},
	"huge-length": func(_ *testing.T, data []byte, e harness.PlacedEntry) []byte {
		binary.LittleEndian.PutUint32(data[e.Offset+lengthAt:], 0xfffffff0)
		return data
	},
	"cut-short": func(_ *testing.T, data []byte, e harness.PlacedEntry) []byte {
		return data[:e.Offset+e.Size/2]
	},
	"unknown-event": func(_ *testing.T, data []byte, e harness.PlacedEntry) []byte {
		payload := bytes.Clone(e.Payload)
		binary.LittleEndian.PutUint32(payload[eventTypeAt-payloadAt:], 9999)
		entry := e.Entry
		entry.Payload = payload
		var enc encoding.Encoder
		entry.Encode(&enc) // with a checksum that fits
		copy(data[e.Offset:], enc.Bytes())
		return data
	},
}

// injury is a damaged object and its data before.
type injury struct {
	image  *harness.Image
	entry  harness.PlacedEntry
	before []byte
}

// TestDamagedJournalStopsItsImageOnly damages the journals of several images, each in another way. Each of those images
// says so and names the object and the offset; an image beside them goes on; and once the damage is repaired, all of them
// do, with nothing lost.
func TestDamagedJournalStopsItsImageOnly(t *testing.T) {
	pair := harness.SharedPair(t)
	pool := harness.NewPool(t, pair, lab.PoolMode)
	healthy := pool.Create(t, "healthy", harness.ImageOptions{SizeMiB: 16})
	var injuries []*injury
	images := []*harness.Image{healthy}
	for name := range damages {
		image := pool.Create(t, name, harness.ImageOptions{SizeMiB: 16})
		images = append(images, image)
		injuries = append(injuries, &injury{image: image})
	}
	daemon := harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	for _, image := range images {
		image.WaitReplayed(t)
	}
	daemon.Stop(t, stopTime)
	for _, image := range images {
		image.Bench(t, "rand", "8K", "1M")
	}
	for _, injury := range injuries {
		injury.inflict(t)
	}

	daemon = harness.StartDaemon(t, pair.Secondary, harness.Ours(t))
	for _, injury := range injuries {
		injury.assertReported(t)
	}
	healthy.Bench(t, "rand", "4K", "256K")
	healthy.WaitReplayed(t)
	healthy.AssertReplica(t)

	for _, injury := range injuries {
		injury.image.WriteObject(t, pair.Primary, injury.entry.Object, injury.before)
	}
	for _, image := range images {
		image.WaitReplayed(t)
		image.AssertReplica(t)
	}
	daemon.Stop(t, stopTime)
}

// inflict damages an entry that the mirror has not committed, with others before and behind it.
func (j *injury) inflict(t *testing.T) {
	t.Helper()
	state := j.image.JournalOn(t, j.image.Primary())
	mirrored := state.Mirror()
	object := j.image.JournalObject(t, state.ActiveSet*state.SplayWidth+1)
	var ahead []harness.PlacedEntry
	for _, e := range j.image.Entries(t, object) {
		at := harness.Position{Tag: uint64(e.Tag), Entry: uint64(e.TID), Any: true}
		if mirrored.Before(at) && len(e.Payload) > 4096 {
			ahead = append(ahead, e)
		}
	}
	if len(ahead) < 3 {
		t.Fatalf("%s: only %d entries of %s are ahead of the mirror", j.image.Name, len(ahead), object)
	}
	j.entry = ahead[len(ahead)/2]
	j.before = j.image.ReadObject(t, j.image.Primary(), object)
	spoilt := damages[j.image.Name](t, bytes.Clone(j.before), j.entry)
	if bytes.Equal(spoilt, j.before) {
		t.Fatalf("%s: nothing was damaged", j.image.Name)
	}
	j.image.WriteObject(t, j.image.Primary(), object, spoilt)
}

// assertReported fails the test unless the image's status tells what is wrong, and its mirror stands before the damage.
func (j *injury) assertReported(t *testing.T) {
	t.Helper()
	if harness.TestsUpstream() {
		return // upstream skips an unknown event, and does not say where damage is
	}
	status := j.image.WaitState(t, "up+error", j.entry.Object, fmt.Sprint(j.entry.Offset))
	t.Logf("%s: %s", j.image.Name, status.Description)
	damaged := harness.Position{Tag: uint64(j.entry.Tag), Entry: uint64(j.entry.TID), Any: true}
	if mirrored := j.image.JournalOn(t, j.image.Primary()).Mirror(); !mirrored.Before(damaged) {
		t.Errorf("%s: the mirror has committed %+v, beyond the damaged entry %+v", j.image.Name, mirrored, damaged)
	}
}
