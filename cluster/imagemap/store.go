package imagemap

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
)

// Object is where the map is, in the pool and in each of its namespaces.
const Object = mirror.LeaderObject

const (
	keyPrefix   = "image_map_"
	deltaPrefix = "rbd_warden_map_delta_"
	epochAttr   = "rbd_warden_map_epoch"
)

const (
	// page is how many entries one operation reads or writes. OSDs give at most
	// osd_max_omap_entries_per_request (1024) in one reply; an entry takes about 200
	// bytes, so a full operation stays far below their limits on size.
	page = 1024
	// deltas is how many of the newest writes can be followed entry by entry.
	deltas = 64
)

// Epoch numbers the states of a map: one more with each write of a rbd-warden. 0: no
// rbd-warden has led here yet.
type Epoch uint64

// Map is the image map as it was at Epoch; single entries may be newer, but not than Newest: it
// is read in several operations, and the leader may write between them.
type Map struct {
	Epoch  Epoch
	Newest Epoch            // as it was when the last entry was read
	Images map[string]Entry // by global image id
	// Damaged has the entries that cannot be decoded. They are left as they are: who
	// owns those images is not known, so nobody starts them.
	Damaged map[string]error
}

// Clone copies the map.
func (m Map) Clone() Map {
	return Map{Epoch: m.Epoch, Newest: m.Newest, Images: maps.Clone(m.Images), Damaged: maps.Clone(m.Damaged)}
}

// put enters what an image's key holds now, nil if there is none, and tells whether that
// is news.
func (m *Map) put(id string, value []byte, exists bool, where func(key string, err error) error) (changed bool) {
	old, had := m.Images[id]
	_, damaged := m.Damaged[id]
	delete(m.Images, id)
	delete(m.Damaged, id)
	if !exists {
		return had || damaged
	}
	e, err := decodeEntry(value)
	if err != nil {
		if m.Damaged == nil {
			m.Damaged = map[string]error{}
		}
		m.Damaged[id] = where(keyPrefix+id, err)
		return !damaged
	}
	m.Images[id] = e
	return !had || !same(e, old)
}

func same(a, b Entry) bool {
	return a.Owner == b.Owner && a.Seat == b.Seat && a.Pin == b.Pin && a.Mapped.Equal(b.Mapped) && a.Moved.Equal(b.Moved)
}

// Read reads the whole map, a page an operation. A map that nobody wrote yet is empty.
// Errors are those of RADOS, or a damaged epoch; damaged entries are in the map.
func Read(ctx context.Context, io rados.IOContext) (Map, error) {
	m := Map{Images: map[string]Entry{}}
	for after := ""; ; {
		var op rados.ReadOp
		list, attrs := op.ListOmap(after, keyPrefix, page), op.Xattrs()
		if err := io.Read(ctx, Object, &op); err != nil {
			if errors.Is(err, syscall.ENOENT) {
				return Map{Images: map[string]Entry{}}, nil
			}
			return Map{}, err
		}
		epoch, err := parseEpoch(io, attrs.Pairs)
		if err != nil {
			return Map{}, err
		}
		if m.Newest = epoch; after == "" { // what changes behind the first page is newer than that
			m.Epoch = epoch
		}
		for key, value := range list.Pairs {
			m.put(strings.TrimPrefix(key, keyPrefix), value, true, at(io))
			after = max(after, key)
		}
		if !list.More || len(list.Pairs) == 0 {
			return m, nil
		}
	}
}

// at makes an error of a damaged value name where it was.
func at(io rados.IOContext) func(key string, err error) error {
	return func(key string, err error) error {
		return &rados.Error{Op: "read " + key, Pool: io.Pool().Name, Namespace: io.Namespace(), Object: Object, Err: err}
	}
}

func parseEpoch(io rados.IOContext, attrs map[string][]byte) (Epoch, error) {
	b, ok := attrs[epochAttr]
	if !ok {
		return 0, nil
	}
	n, err := strconv.ParseUint(string(b), 10, 64)
	if err != nil || n == 0 {
		return 0, at(io)(epochAttr, &encoding.CorruptError{What: "image map's epoch", Reason: fmt.Sprintf("%q is no positive number", b)})
	}
	return Epoch(n), nil
}

func (e Epoch) bytes() []byte { return strconv.AppendUint(nil, uint64(e), 10) }

func (e Epoch) deltaKey() string { return fmt.Sprintf("%s%016x", deltaPrefix, uint64(e)) }

// readEpoch looks whether anything has changed, and which images did, if at most so many
// writes lie between as are kept.
func readEpoch(ctx context.Context, io rados.IOContext, since Epoch) (now Epoch, changed []string, known bool, err error) {
	var op rados.ReadOp
	attrs := op.Xattrs()
	if err := io.Read(ctx, Object, &op); err != nil {
		return 0, nil, false, err
	}
	if now, err = parseEpoch(io, attrs.Pairs); err != nil || now == since {
		return now, nil, true, err
	}
	if now < since || now-since > deltas {
		return now, nil, false, nil
	}
	var keys []string
	for e := since + 1; e <= now; e++ {
		keys = append(keys, e.deltaKey())
	}
	op = rados.ReadOp{}
	got := op.GetOmap(keys...)
	if err := io.Read(ctx, Object, &op); err != nil {
		return 0, nil, false, err
	}
	seen := map[string]bool{}
	for _, key := range keys {
		b, ok := got.Pairs[key]
		if !ok {
			return now, nil, false, nil // a term began, or the delta has been dropped since
		}
		ids, err := decodeDelta(key, b)
		if err != nil {
			return 0, nil, false, at(io)(key, err)
		}
		for _, id := range ids {
			seen[id] = true
		}
	}
	return now, slices.Sorted(maps.Keys(seen)), true, nil
}

// ReadEntry reads who owns one image; false if the map does not have it.
func ReadEntry(ctx context.Context, io rados.IOContext, globalID string) (Entry, bool, error) {
	var op rados.ReadOp
	got := op.GetOmap(keyPrefix + globalID)
	if err := io.Read(ctx, Object, &op); err != nil {
		if errors.Is(err, syscall.ENOENT) {
			return Entry{}, false, nil
		}
		return Entry{}, false, err
	}
	value, ok := got.Pairs[keyPrefix+globalID]
	if !ok {
		return Entry{}, false, nil
	}
	e, err := decodeEntry(value)
	if err != nil {
		return Entry{}, false, at(io)(keyPrefix+globalID, err)
	}
	return e, true, nil
}
