package journal

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
)

const testImage = "img"

// fakeIO is a pool with one journal in it: data objects, and a header that does
// what cls_journal does, without its sanity checks.
type fakeIO struct {
	mu       sync.Mutex
	objects  map[string][]byte
	header   *fakeHeader
	watchers map[int]rados.WatchHandler
	nextID   int
	reads    map[string]int // of data objects
	fail     func(object string) error
	notified int

	failWrite func(method string) error // of the class
	onNotify  func()
	namespace string
	cluster   rados.Cluster
}

type fakeHeader struct {
	order, width    uint8
	pool            int64
	minimum, active wire.ObjectSet
	tags            []wire.Tag
	nextClass       wire.TagClass
	clients         map[string]*wire.Client
}

func newFakeIO() *fakeIO {
	return &fakeIO{objects: map[string][]byte{}, watchers: map[int]rados.WatchHandler{}, reads: map[string]int{}}
}

// newFakeJournal makes a journal as librbd would, and opens it.
func newFakeJournal(t testing.TB, width uint8) (*fakeIO, *Journal) {
	t.Helper()
	io := newFakeIO()
	if err := Create(t.Context(), io, testImage, CreateOptions{Order: 12, SplayWidth: width, Pool: -1}); err != nil {
		t.Fatal(err)
	}
	j, err := Open(t.Context(), io, testImage)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(j.Close)
	return io, j
}

func (f *fakeIO) Pool() rados.Pool       { return rados.Pool{ID: 7, Name: "fake"} }
func (f *fakeIO) Namespace() string      { return f.namespace }
func (f *fakeIO) Cluster() rados.Cluster { return f.cluster }
func (f *fakeIO) Close()                 {}

func (f *fakeIO) Read(ctx context.Context, object string, op *rados.ReadOp) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.fail != nil {
		if err := f.fail(object); err != nil {
			return err
		}
	}
	for _, s := range op.Steps {
		var err error
		switch s.Kind {
		case rados.ReadData:
			f.reads[object]++
			b, ok := f.objects[object]
			if !ok {
				return syscall.ENOENT
			}
			from := min(s.Offset, uint64(len(b)))
			s.Data = bytes.Clone(b[from:min(from+s.Length, uint64(len(b)))])
		case rados.ReadExec:
			if f.header == nil {
				return syscall.ENOENT
			}
			s.Data, err = f.header.exec(s.Call)
		case rados.ReadOmapList: // of the tags
			s.Pairs = map[string][]byte{}
			for _, tag := range f.header.tags {
				s.Pairs[fmt.Sprintf("tag_%016x", uint64(tag.TID))] = wire.Marshal(tag)
			}
		default:
			err = fmt.Errorf("fake: read step %d", s.Kind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (f *fakeIO) Write(_ context.Context, object string, op *rados.WriteOp) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range op.Steps {
		var err error
		if f.failWrite != nil {
			if err := f.failWrite(s.Call.Method); err != nil {
				return err
			}
		}
		switch {
		case s.Kind == rados.WriteExec && s.Call.Method == "guard_append":
			if softMax := encoding.NewDecoder("", s.Call.In).U64(); uint64(len(f.objects[object])) >= softMax {
				return syscall.EOVERFLOW
			}
		case s.Kind == rados.WriteAppend:
			f.objects[object] = append(f.objects[object], s.Data...)
		case s.Kind == rados.WriteExec && s.Call.Method == "create":
			if f.header != nil {
				return syscall.EEXIST
			}
			f.header = &fakeHeader{clients: map[string]*wire.Client{}}
			_, err = f.header.exec(s.Call)
		case s.Kind == rados.WriteExec && f.header == nil:
			err = syscall.ENOENT
		case s.Kind == rados.WriteExec:
			_, err = f.header.exec(s.Call)
		case s.Kind == rados.WriteRemove && object == wire.HeaderObject(testImage) && f.header != nil:
			f.header = nil
		case s.Kind == rados.WriteRemove:
			if _, ok := f.objects[object]; !ok {
				return syscall.ENOENT
			}
			delete(f.objects, object)
		default:
			err = fmt.Errorf("fake: write step %d", s.Kind)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (h *fakeHeader) exec(c class.Call) ([]byte, error) {
	d, e := encoding.NewDecoder(c.Method, c.In), &encoding.Encoder{}
	client := func() (*wire.Client, error) {
		if c, ok := h.clients[d.String()]; ok {
			return c, nil
		}
		return nil, syscall.ENOENT
	}
	var err error
	var cl *wire.Client
	switch c.Method {
	case "create":
		h.order, h.width, h.pool = d.U8(), d.U8(), d.I64()
	case "get_order":
		e.U8(h.order)
	case "get_splay_width":
		e.U8(h.width)
	case "get_pool_id":
		e.I64(h.pool)
	case "get_minimum_set":
		e.U64(uint64(h.minimum))
	case "get_active_set":
		e.U64(uint64(h.active))
	case "set_minimum_set":
		s := wire.ObjectSet(d.U64())
		switch {
		case s > h.active:
			err = syscall.EINVAL
		case s < h.minimum:
			err = syscall.ESTALE
		default:
			h.minimum = s
		}
	case "set_active_set":
		h.active = max(h.active, wire.ObjectSet(d.U64()))
	case "tag_list":
		after, most := d.U64(), d.U64()
		_, hasClass := d.String(), d.Bool()
		class := wire.TagClass(0)
		if hasClass {
			class = wire.TagClass(d.U64())
		}
		var tags []wire.Tag
		for _, t := range h.tags {
			if (after == 0 || uint64(t.TID) > after) && (!hasClass || t.Class == class) && len(tags) < int(most) {
				tags = append(tags, t)
			}
		}
		e.U32(uint32(len(tags)))
		for _, t := range tags {
			t.Encode(e)
		}
	case "get_next_tag_tid":
		e.U64(uint64(len(h.tags)))
	case "tag_create":
		tag := wire.Tag{TID: wire.TagTID(d.U64()), Class: wire.TagClass(d.U64()), Data: bytes.Clone(d.Blob())}
		if int(tag.TID) != len(h.tags) {
			return nil, syscall.ESTALE
		}
		if tag.Class == wire.NewTagClass {
			tag.Class = h.nextClass
			h.nextClass++
		}
		h.tags = append(h.tags, tag)
	case "get_tag":
		n := d.U64()
		if n >= uint64(len(h.tags)) {
			return nil, syscall.ENOENT
		}
		h.tags[n].Encode(e)
	case "client_register":
		id := d.String()
		if h.clients[id] != nil {
			return nil, syscall.EEXIST
		}
		h.clients[id] = &wire.Client{ID: id, Data: bytes.Clone(d.Blob())}
	case "client_unregister":
		if cl, err = client(); err == nil {
			delete(h.clients, cl.ID)
		}
	case "client_update_state":
		if cl, err = client(); err == nil {
			cl.State = wire.ClientState(d.U8())
		}
	case "client_update_data":
		if cl, err = client(); err == nil {
			cl.Data = bytes.Clone(d.Blob())
		}
	case "client_commit":
		if cl, err = client(); err == nil {
			cl.CommitPosition.Decode(d)
		}
	case "get_client":
		if cl, err = client(); err == nil {
			cl.Encode(e)
		}
	case "client_list":
		after, most := d.String(), d.U64()
		ids := slices.DeleteFunc(slices.Sorted(maps.Keys(h.clients)), func(id string) bool { return after != "" && id <= after })
		ids = ids[:min(len(ids), int(most))]
		e.U32(uint32(len(ids)))
		for _, id := range ids {
			h.clients[id].Encode(e)
		}
	default:
		err = fmt.Errorf("fake: method %s", c.Method)
	}
	if err == nil {
		err = d.Err()
	}
	return e.Bytes(), err
}

type fakeWatch struct {
	f  *fakeIO
	id int
}

func (w fakeWatch) Cookie() uint64                { return uint64(w.id) }
func (w fakeWatch) Check() (time.Duration, error) { return 0, nil }
func (w fakeWatch) Close(ctx context.Context) error {
	w.f.mu.Lock()
	defer w.f.mu.Unlock()
	delete(w.f.watchers, w.id)
	return nil
}

func (f *fakeIO) Watch(_ context.Context, _ string, _ time.Duration, h rados.WatchHandler) (rados.Watch, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.nextID++
	f.watchers[f.nextID] = h
	return fakeWatch{f, f.nextID}, nil
}

func (f *fakeIO) Notify(context.Context, string, []byte, time.Duration) (rados.NotifyReply, error) {
	f.mu.Lock()
	handlers := slices.Collect(maps.Values(f.watchers))
	f.notified++
	f.mu.Unlock()
	if f.onNotify != nil {
		f.onNotify()
	}
	for _, h := range handlers {
		h.Notified(rados.Notification{Ack: func([]byte) {}})
	}
	return rados.NotifyReply{}, nil
}

// loseWatches ends every watch, as the OSD does after a break of the connection.
func (f *fakeIO) loseWatches() {
	f.mu.Lock()
	handlers := slices.Collect(maps.Values(f.watchers))
	clear(f.watchers)
	f.mu.Unlock()
	for _, h := range handlers {
		h.WatchLost(syscall.ENOTCONN)
	}
}

func (f *fakeIO) CreateSnapID(context.Context) (ceph.SnapID, error)     { panic("not used") }
func (f *fakeIO) RemoveSnapID(context.Context, ceph.SnapID) error       { panic("not used") }
func (f *fakeIO) List(context.Context, func(object string) error) error { panic("not used") }

// put appends an entry to a data object, and pad zeros behind it.
func (f *fakeIO) put(n wire.ObjectNumber, e wire.Entry, pad bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := wire.DataObject(7, testImage, n)
	b := append(f.objects[name], wire.Marshal(e)...)
	for pad && len(b)%32 != 0 {
		b = append(b, 0)
	}
	f.objects[name] = b
}

func (f *fakeIO) change(fn func(h *fakeHeader)) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn(f.header)
}
