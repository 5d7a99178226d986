//go:build live

package librados

import (
	"bytes"
	"context"
	"errors"
	"hash/crc32"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/rados"
)

func TestLiveWriteSteps(t *testing.T) {
	io := openTest(t, connectTest(t))
	big := bytes.Repeat([]byte("0123456789abcdef"), 1<<14) // by address, in one piece
	w := func() *rados.WriteOp { return &rados.WriteOp{} }
	for _, tc := range []struct {
		name  string
		setup *rados.WriteOp
		op    *rados.WriteOp
		want  string
		err   error
	}{
		{"create", nil, w().Create(true), "", nil},
		{"create exclusive", w().Create(true), w().Create(true), "", syscall.EEXIST},
		{"assert exists", nil, w().AssertExists().WriteFull([]byte("x")), "", syscall.ENOENT},
		{"write", nil, w().Write(2, []byte("ab")), "\x00\x00ab", nil},
		{"write big", nil, w().Write(0, big), string(big), nil},
		{"write full", w().WriteFull([]byte("long old data")), w().WriteFull([]byte("new")), "new", nil},
		{"write same", nil, w().WriteSame(1, 6, []byte("xyz")), "\x00xyzxyz", nil},
		{"append", w().WriteFull([]byte("ab")), w().Append([]byte("cd")), "abcd", nil},
		{"zero", w().WriteFull([]byte("abcd")), w().Zero(1, 2), "a\x00\x00d", nil},
		{"truncate", w().WriteFull([]byte("abcd")), w().Truncate(2), "ab", nil},
		{"alloc hint", nil, w().AllocHint(4<<20, 4<<20).Write(0, []byte("a")), "a", nil},
		{"remove", w().WriteFull([]byte("abcd")), w().Remove(), "", syscall.ENOENT},
		{"cmpext equal", w().WriteFull([]byte("abcd")), w().CmpExt(1, []byte("bc")).Write(0, []byte("X")), "Xbcd", nil},
		{"cmpxattr differs", w().SetXattr("a", []byte("1")), w().CmpXattr("a", []byte("2")).Append([]byte("x")), "", syscall.ECANCELED},
		{"cmpxattr equal", w().SetXattr("a", []byte("1")), w().CmpXattr("a", []byte("1")).Append([]byte("x")), "x", nil},
		{"cmpomap differs", w().SetOmap(map[string][]byte{"a": []byte("1")}), w().CmpOmap("a", []byte("2")).Append([]byte("x")), "", syscall.ECANCELED},
		{"cmpomap missing", w().Create(false), w().CmpOmap("a", []byte("2")).Append([]byte("x")), "", syscall.ECANCELED},
		{"cmpomap equal", w().SetOmap(map[string][]byte{"a": []byte("1")}), w().CmpOmap("a", []byte("1")).Append([]byte("x")), "x", nil},
		{"assert version", w().Create(false), w().AssertVersion(1 << 40).Append([]byte("x")), "", syscall.EOVERFLOW},
	} {
		t.Run(tc.name, func(t *testing.T) {
			name := strings.ReplaceAll(tc.name, " ", "-")
			if tc.setup != nil {
				mustWrite(t, io, name, tc.setup)
			}
			err := io.Write(ctxFor(t, 10*time.Second), name, tc.op)
			if tc.name == "remove" && err == nil {
				var op rados.ReadOp
				op.AssertExists()
				err = io.Read(ctxFor(t, 10*time.Second), name, &op)
			}
			if !errors.Is(err, tc.err) {
				t.Fatalf("error %v, want %v", err, tc.err)
			}
			if err == nil {
				if got := readAt(t, io, name, 0); got != tc.want {
					t.Errorf("object holds %d bytes %.40q, want %.40q", len(got), got, tc.want)
				}
			}
		})
	}
}

func TestLiveMismatch(t *testing.T) {
	io := openTest(t, connectTest(t))
	mustWrite(t, io, "o", new(rados.WriteOp).WriteFull([]byte("abcdef")))
	for offset, with := range map[uint64]string{0: "Xbcd", 3: "abcX"} {
		err := io.Write(ctxFor(t, 10*time.Second), "o", new(rados.WriteOp).CmpExt(0, []byte(with)).WriteFull([]byte("no")))
		var m *rados.MismatchError
		if !errors.As(err, &m) || m.Offset != offset {
			t.Errorf("compare with %q: %v, want a mismatch at %d", with, err, offset)
		}
	}
	if got := readAt(t, io, "o", 0); got != "abcdef" {
		t.Errorf("a failed compare changed the object to %q", got)
	}
}

func TestLiveOmapAndXattrs(t *testing.T) {
	io := openTest(t, connectTest(t))
	mustWrite(t, io, "o", new(rados.WriteOp).
		SetOmap(map[string][]byte{"a1": []byte("1"), "a2": nil, "a3": []byte("3"), "b": {0, 1}}).
		SetXattr("x", []byte("X")).SetXattr("y", []byte("Y")))
	var op rados.ReadOp
	page := op.ListOmap("a1", "a", 1)
	all := op.ListOmap("", "", 100)
	some := op.GetOmap("b", "none")
	attrs := op.Xattrs()
	mustRead(t, io, "o", &op)
	check := func(what string, got, want any) {
		t.Helper()
		if d := cmp.Diff(want, got); d != "" {
			t.Errorf("%s: -want +got\n%s", what, d)
		}
	}
	check("page", page.Pairs, map[string][]byte{"a2": {}})
	check("more", page.More, true)
	check("all", all.Pairs, map[string][]byte{"a1": []byte("1"), "a2": {}, "a3": []byte("3"), "b": {0, 1}})
	check("no more", all.More, false)
	check("some", some.Pairs, map[string][]byte{"b": {0, 1}})
	check("xattrs", attrs.Pairs, map[string][]byte{"x": []byte("X"), "y": []byte("Y")})

	mustWrite(t, io, "o", new(rados.WriteOp).RemoveOmap("a1", "none").RemoveXattr("x"))
	op = rados.ReadOp{}
	all, attrs = op.ListOmap("", "", 100), op.Xattrs()
	mustRead(t, io, "o", &op)
	check("after removal", len(all.Pairs), 3)
	check("xattrs after removal", attrs.Pairs, map[string][]byte{"y": []byte("Y")})
	mustWrite(t, io, "o", new(rados.WriteOp).ClearOmap())
	op = rados.ReadOp{}
	all = op.ListOmap("", "", 100)
	mustRead(t, io, "o", &op)
	check("cleared", len(all.Pairs), 0)
}

func TestLiveReadSteps(t *testing.T) {
	io := openTest(t, connectTest(t))
	data := bytes.Repeat([]byte("abcdefgh"), 1024)
	before := time.Now()
	mustWrite(t, io, "o", new(rados.WriteOp).Write(64<<10, data).SetXattr("a", []byte("1")))
	var op rados.ReadOp
	op.AssertExists()
	op.CmpXattr("a", []byte("1"))
	part := op.Read(64<<10+8, 8)
	beyond := op.Read(1<<20, 8)
	sparse := op.SparseRead(0, 1<<20)
	stat := op.Stat()
	sums := op.Checksum(rados.CRC32C, 0xffffffff, 64<<10, 8192, 4096)
	mustRead(t, io, "o", &op)
	if string(part.Data) != "abcdefgh" || len(beyond.Data) != 0 {
		t.Errorf("read %q and %q", part.Data, beyond.Data)
	}
	var got []byte
	n := uint64(0)
	for _, e := range sparse.Extents {
		got = append(got, make([]byte, e.Offset-uint64(len(got)))...)
		got = append(got, sparse.Data[n:n+e.Length]...)
		n += e.Length
	}
	if want := append(make([]byte, 64<<10), data...); !bytes.Equal(got, want) || n != uint64(len(sparse.Data)) {
		t.Errorf("sparse read gives %d bytes by %v, want %d", len(got), sparse.Extents, len(want))
	}
	if stat.Size != 72<<10 || stat.ModTime.Before(before.Add(-time.Minute)) || stat.ModTime.After(before.Add(time.Minute)) {
		t.Errorf("stat: %d bytes at %v", stat.Size, stat.ModTime)
	}
	crc := ^crc32.Update(0, crc32.MakeTable(crc32.Castagnoli), data[:4096])
	want := encoding.NewEncoder(0)
	want.U32(2)
	want.U32(crc)
	want.U32(crc)
	if !bytes.Equal(sums.Data, want.Bytes()) {
		t.Errorf("checksums %x, want %x", sums.Data, want.Bytes())
	}
	op = rados.ReadOp{}
	op.CmpXattr("a", []byte("2"))
	if err := io.Read(ctxFor(t, 10*time.Second), "o", &op); !errors.Is(err, syscall.ECANCELED) {
		t.Errorf("compare of an attribute that differs: %v", err)
	}
	op = rados.ReadOp{}
	op.Read(0, 1)
	err := io.Read(ctxFor(t, 10*time.Second), "none", &op)
	var re *rados.Error
	if !errors.Is(err, syscall.ENOENT) || !errors.As(err, &re) || re.Object != "none" || re.Pool != testPool {
		t.Errorf("read of no object: %v", err)
	}
}

func TestLiveClassCalls(t *testing.T) {
	io := openTest(t, connectTest(t))
	ctx := ctxFor(t, 10*time.Second)
	if err := rados.Tell(ctx, io, "o", class.Call{Class: "hello", Method: "record_hello", In: []byte("you")}); err != nil {
		t.Fatal(err)
	}
	reply, err := rados.Ask(ctx, io, "o", class.Query[string]{
		Call:   class.Call{Class: "hello", Method: "replay"},
		Decode: func(b []byte) (string, error) { return string(b), nil },
	})
	if err != nil || !strings.Contains(reply, "you") {
		t.Errorf("the class answers %q, %v", reply, err)
	}
	err = rados.Tell(ctx, io, "o", class.Call{Class: "hello", Method: "none"})
	if !errors.Is(err, syscall.EOPNOTSUPP) || !strings.Contains(err.Error(), "hello.none") {
		t.Errorf("call of no method: %v", err)
	}
}

func TestLiveSnapshots(t *testing.T) {
	io := openTest(t, connectTest(t))
	ctx := ctxFor(t, 20*time.Second)
	snap := func() ceph.SnapID {
		id, err := io.CreateSnapID(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	mustWrite(t, io, "o", new(rados.WriteOp).WriteFull([]byte("first")))
	s1 := snap()
	op := new(rados.WriteOp).Write(0, []byte("F"))
	op.SnapContext = ceph.SnapContext{Seq: s1, Snaps: []ceph.SnapID{s1}}
	mustWrite(t, io, "o", op)
	s2 := snap()
	op = new(rados.WriteOp).Remove()
	op.SnapContext = ceph.SnapContext{Seq: s2, Snaps: []ceph.SnapID{s2, s1}}
	mustWrite(t, io, "o", op)

	if a, b := readAt(t, io, "o", s1), readAt(t, io, "o", s2); a != "first" || b != "First" {
		t.Errorf("at the snapshots %q and %q", a, b)
	}
	var gone rados.ReadOp
	gone.Snap = ceph.NoSnap
	gone.Read(0, 1)
	if err := io.Read(ctx, "o", &gone); !errors.Is(err, syscall.ENOENT) {
		t.Errorf("the removed head: %v", err)
	}
	var list rados.ReadOp
	snaps := list.ListSnaps()
	mustRead(t, io, "o", &list)
	want := []rados.Clone{
		{ID: s1, Snaps: []ceph.SnapID{s1}, Overlap: []rados.Extent{{Offset: 1, Length: 4}}, Size: 5},
		{ID: s2, Snaps: []ceph.SnapID{s2}, Size: 5},
	}
	got := snaps.Clones
	for i := range got {
		if len(got[i].Overlap) == 0 {
			got[i].Overlap = nil
		}
	}
	// The overlap of the older clone is with the newer one; it is exact only where the
	// store tracks it, so compare ids and sizes strictly and the overlap as far as given.
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("history: -want +got\n%s", d)
	}
	if snaps.Seq != s2 {
		t.Errorf("newest snapshot %d, want %d", snaps.Seq, s2)
	}
	op = new(rados.WriteOp).Rollback(s1)
	op.SnapContext = ceph.SnapContext{Seq: s2, Snaps: []ceph.SnapID{s2, s1}}
	mustWrite(t, io, "o", op)
	if got := readAt(t, io, "o", 0); got != "first" {
		t.Errorf("after the rollback %q", got)
	}
	if err := io.RemoveSnapID(ctx, s1); err != nil {
		t.Error(err)
	}
}

func TestLiveList(t *testing.T) {
	io := openTest(t, connectTest(t))
	want := map[string]bool{"a": true, "b": true, "c": true}
	for name := range want {
		mustWrite(t, io, name, new(rados.WriteOp).Create(true))
	}
	got := map[string]bool{}
	if err := io.List(ctxFor(t, 10*time.Second), func(o string) error { got[o] = true; return nil }); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
	stop := errors.New("enough")
	if err := io.List(ctxFor(t, 10*time.Second), func(string) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the callback's error came back as %v", err)
	}
}

// Payloads belong to the caller again once Write has returned, even when its context
// has ended and the operation is still under way.
func TestLivePayloadIsCopied(t *testing.T) {
	io := openTest(t, connectTest(t))
	for i := range 50 {
		data := bytes.Repeat([]byte{'a'}, 1<<20)
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			time.Sleep(time.Duration(i*20) * time.Microsecond)
			cancel()
		}()
		err := io.Write(ctx, "o", new(rados.WriteOp).WriteFull(data))
		for j := range data {
			data[j] = 'b'
		}
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	mustWrite(t, io, "o", new(rados.WriteOp).Append([]byte("a")))
	op := rados.ReadOp{}
	got := op.Read(0, 2<<20)
	mustRead(t, io, "o", &op)
	if bytes.ContainsRune(got.Data, 'b') {
		t.Error("bytes changed after Write had returned reached the object")
	}
}

func TestLiveConcurrent(t *testing.T) {
	io := openTest(t, connectTest(t, func(c *Config) { c.MaxUnderway = 16 }))
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			name := string(rune('a' + g))
			for i := range 100 {
				data := bytes.Repeat([]byte{byte(i)}, 100*(i+1))
				if err := io.Write(t.Context(), name, new(rados.WriteOp).WriteFull(data)); err != nil {
					t.Error(err)
					return
				}
				var op rados.ReadOp
				got := op.Read(0, 1<<20)
				if err := io.Read(t.Context(), name, &op); err != nil || !bytes.Equal(got.Data, data) {
					t.Errorf("round %d: %v", i, err)
					return
				}
			}
		})
	}
	wg.Wait()
}
