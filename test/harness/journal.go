package harness

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/lab"
)

// Position is an entry's place in a journal. The zero value with Any false is before every entry.
type Position struct {
	Object uint64 `json:"object_number"`
	Tag    uint64 `json:"tag_tid"`
	Entry  uint64 `json:"entry_tid"`
	Any    bool   `json:"-"`
}

// Before says whether p comes before q.
func (p Position) Before(q Position) bool {
	switch {
	case p.Any != q.Any:
		return q.Any
	case p.Tag != q.Tag:
		return p.Tag < q.Tag
	}
	return p.Entry < q.Entry
}

// Journal is what rbd journal status and info say of an image's journal.
type Journal struct {
	ID         string
	SplayWidth uint64
	MinimumSet uint64
	ActiveSet  uint64
	// Clients maps client ids to commit positions, newest first. The primary itself is the client "".
	Clients map[string][]Position
}

// Master is the newest entry that the primary has committed.
func (j Journal) Master() Position { return newest(j.Clients[""]) }

// MirrorID is the id of the mirror's client, empty where none is registered.
func (j Journal) MirrorID() string {
	for id := range j.Clients {
		if id != "" {
			return id
		}
	}
	return ""
}

// Mirror is the newest entry that the mirror has committed.
func (j Journal) Mirror() Position {
	if id := j.MirrorID(); id != "" {
		return newest(j.Clients[id])
	}
	return Position{}
}

func newest(positions []Position) Position {
	if len(positions) == 0 {
		return Position{}
	}
	p := positions[0]
	p.Any = true
	return p
}

// journal are the arguments of rbd journal for a question about the image.
func (i *Image) journal(question string) []string {
	return append([]string{"journal", question, "--format", "json", "--image", i.Name}, i.Pool.place()...)
}

// JournalOn reads the state of the image's journal on a cluster.
func (i *Image) JournalOn(t testing.TB, c *lab.Cluster) Journal {
	t.Helper()
	var info struct {
		ID    string `json:"journal_id"`
		Splay uint64 `json:"splay_width"`
	}
	decode(t, Run(t, c, "rbd", i.journal("info")...), &info)
	var status struct {
		Minimum uint64 `json:"minimum_set"`
		Active  uint64 `json:"active_set"`
		Clients []struct {
			ID     string `json:"id"`
			Commit struct {
				Positions []Position `json:"object_positions"`
			} `json:"commit_position"`
		} `json:"registered_clients"`
	}
	decode(t, Run(t, c, "rbd", i.journal("status")...), &status)
	j := Journal{
		ID: info.ID, SplayWidth: info.Splay, MinimumSet: status.Minimum, ActiveSet: status.Active,
		Clients: map[string][]Position{},
	}
	for _, client := range status.Clients {
		j.Clients[client.ID] = client.Commit.Positions
	}
	return j
}

// PeerMeta reads the mirror's data in the primary's journal: state, sync points and snapshot ids. The second result is
// false while no mirror is registered.
func (i *Image) PeerMeta(t testing.TB) (journal.MirrorPeerClientMeta, bool) {
	t.Helper()
	j := i.JournalOn(t, i.Primary())
	id := j.MirrorID()
	if id == "" {
		return journal.MirrorPeerClientMeta{}, false
	}
	peer, ok := i.clientMeta(t, i.Primary(), j.ID, id).(journal.MirrorPeerClientMeta)
	if !ok {
		t.Fatalf("data of the journal's client %s is of another type", id)
	}
	return peer, true
}

// ResyncRequested tells whether a re-sync was asked for on a cluster and is not complete.
func (i *Image) ResyncRequested(t testing.TB, c *lab.Cluster) bool {
	t.Helper()
	own, ok := i.clientMeta(t, c, i.InfoOn(t, c).ID, journal.MasterClientID).(journal.ImageClientMeta)
	if !ok {
		t.Fatal("data of the image's own client is of another type")
	}
	return own.ResyncRequested
}

// clientMeta reads the data of a journal's client.
func (i *Image) clientMeta(t testing.TB, c *lab.Cluster, journalID, id string) journal.ClientMeta {
	t.Helper()
	file := filepath.Join(t.TempDir(), "client")
	Run(t, c, "rados", append(i.Pool.place(), "getomapval", "journal."+journalID, "client_"+id, file)...)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// A client's record begins with its id and its data (src/cls/journal/cls_journal_types.cc).
	d := encoding.NewDecoder("journal client", raw)
	var data []byte
	d.Struct(1, func(d *encoding.Decoder, _ uint8) {
		_ = d.Blob()
		data = append(data, d.Blob()...)
		_ = d.Rest()
	})
	if err := d.Err(); err != nil {
		t.Fatal(err)
	}
	meta, err := journal.DecodeClientData(data)
	if err != nil {
		t.Fatal(err)
	}
	return meta
}

// SnapSeq is the newest snapshot id that the image on the cluster ever had: a new sync point raises the primary's.
func (i *Image) SnapSeq(t testing.TB, c *lab.Cluster) uint64 {
	t.Helper()
	file := filepath.Join(t.TempDir(), "snap_seq")
	Run(t, c, "rados", append(i.Pool.place(), "getomapval", "rbd_header."+i.InfoOn(t, c).ID, "snap_seq", file)...)
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return encoding.NewDecoder("snap_seq", raw).U64()
}

// JournalObject names a data object of the image's journal on the primary.
func (i *Image) JournalObject(t testing.TB, number uint64) string {
	t.Helper()
	pool := PoolID(t, i.Primary(), i.Pool.Name)
	return journal.DataObject(pool, i.JournalOn(t, i.Primary()).ID, journal.ObjectNumber(number))
}

// ReadObject reads an object of the image's pool on a cluster.
func (i *Image) ReadObject(t testing.TB, c *lab.Cluster, name string) []byte {
	t.Helper()
	file := filepath.Join(t.TempDir(), "object")
	Run(t, c, "rados", append(i.Pool.place(), "get", name, file)...)
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TryObject is ReadObject of an object that may be missing, and is empty then.
func (i *Image) TryObject(t testing.TB, c *lab.Cluster, name string) []byte {
	t.Helper()
	if _, err := Try(c, "rados", append(i.Pool.place(), "stat", name)...); err != nil {
		return nil
	}
	return i.ReadObject(t, c, name)
}

// WriteObject replaces an object's data on a cluster.
func (i *Image) WriteObject(t testing.TB, c *lab.Cluster, name string, data []byte) {
	t.Helper()
	file := filepath.Join(t.TempDir(), "object")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	Run(t, c, "rados", append(i.Pool.place(), "put", name, file)...)
}

// PlacedEntry is an entry of a journal's data object and where it begins in it, in bytes.
type PlacedEntry struct {
	journal.Entry
	Object string
	Offset int
	Size   int
}

// Entries reads the entries of a journal's data object on the primary, none if it is missing. Padding ends the list.
func (i *Image) Entries(t testing.TB, object string) []PlacedEntry {
	t.Helper()
	data := i.TryObject(t, i.Primary(), object)
	var found []PlacedEntry
	for at := 0; at < len(data) && data[at] != 0; {
		entry, size, err := journal.DecodeEntry(data[at:])
		if err != nil {
			t.Fatalf("%s at %d: %v", object, at, err)
		}
		found = append(found, PlacedEntry{entry, object, at, size})
		at += size
	}
	return found
}

// dataPlace is Pool.place of where the image's data objects are.
func (i *Image) dataPlace(info Info) []string {
	p := *i.Pool
	if info.DataPool != "" {
		p.Name = info.DataPool
	}
	return p.place()
}

// DataObjects lists the image's data objects on a cluster by number.
func (i *Image) DataObjects(t testing.TB, c *lab.Cluster) []uint64 {
	t.Helper()
	return i.dataObjects(t, c, i.InfoOn(t, c))
}

// Remains counts the data objects that there are on a cluster of a former image, whose properties were these. What OSDs have
// not trimmed yet of its snapshots does not count.
func (i *Image) Remains(t testing.TB, c *lab.Cluster, former Info) int {
	t.Helper()
	return len(i.heads(t, c, former, i.dataObjects(t, c, former)))
}

func (i *Image) dataObjects(t testing.TB, c *lab.Cluster, info Info) []uint64 {
	t.Helper()
	var numbers []uint64
	for line := range strings.Lines(Run(t, c, "rados", append(i.dataPlace(info), "ls")...)) {
		var n uint64
		if _, err := fmt.Sscanf(strings.TrimSpace(line), info.Prefix+".%016x", &n); err == nil {
			numbers = append(numbers, n)
		}
	}
	sort.Slice(numbers, func(a, b int) bool { return numbers[a] < numbers[b] })
	return numbers
}
