package replayer_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/rs/zerolog"

	"github.com/rbdwarden/rbdwarden/actors/pool"
	"github.com/rbdwarden/rbdwarden/actors/replayer"
	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	"github.com/rbdwarden/rbdwarden/ceph"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/config"
	"github.com/rbdwarden/rbdwarden/image"
	"github.com/rbdwarden/rbdwarden/image/lock"
	"github.com/rbdwarden/rbdwarden/journal"
	"github.com/rbdwarden/rbdwarden/messages"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
	"github.com/rbdwarden/rbdwarden/report"
	"github.com/rbdwarden/rbdwarden/supervision"
)

// These tests run the real actors, journal and image code on two clusters in memory,
// with operations that fail, lose their answers and come late, and with workers that
// die. What must hold in the end: the local image is the remote's, byte for byte.

var (
	firstSeed = flag.Uint64("seed", 1, "the first seed of the runs with faults")
	seeds     = flag.Int("seeds", 12, "how many runs with faults")
)

const (
	imageSize   = 2 << 20
	objectOrder = 16
	globalID    = "global-1"
)

// scene is a primary with one image, and a secondary that workers mirror it to.
type scene struct {
	t             *testing.T
	remote, local *mem.Store
	rng           *rand.Rand

	primary   rados.IOContext // the primary's own connection: nothing goes wrong on it
	tag       wire.Tag
	next      wire.EntryTID
	model     []byte // what the image holds when all events are applied
	parentTag wire.Tag
	base      []byte // of a clone: what its snapshot "base" holds
	trusted   sync.Map
	flattened wire.OpTID // the flatten; 0: none
	opening   sync.Mutex // the primary's own librbd opens the image once at a time
	op        wire.OpTID
	credit    func() replayer.Credit // of a budget that it shares; nil: none
	urgent    func() replayer.Credit
	pace      func() replayer.Paced         // limits on bytes a second; nil: none
	patience  supervision.Patience          // zero: nobody watches
	journals  bool                          // sync points are journalled
	onSync    func(create func())           // makes the sync point by create; nil: as it is
	fault     atomic.Pointer[mem.FaultFunc] // judges the operations of a scene without chaos
}

// faulty lets an operation of a worker fail, lose its answer or come late.
func faulty(seed uint64, trusted *sync.Map) mem.Faults {
	chaos := &mem.Chaos{Seed: seed, MaxDelay: time.Millisecond, Fail: 0.004, Hide: 0.004}
	return mem.FaultFunc(func(op mem.Op) mem.Verdict {
		if _, ok := trusted.Load(op.Client); ok {
			return mem.Verdict{}
		}
		return chaos.Judge(op)
	})
}

// judge asks the fault that the test has set, if any.
func (s *scene) judge(op mem.Op) mem.Verdict {
	if fault := s.fault.Load(); fault != nil {
		return (*fault)(op)
	}
	return mem.Verdict{}
}

// options are what image and journal ask a cluster for.
var options = map[string]string{
	"rbd_default_data_pool": "", "rbd_journal_order": "24", "rbd_journal_splay_width": "4", "rbd_journal_pool": "",
	"rbd_blocklist_expire_seconds": "0",
}

func newScene(t *testing.T, seed uint64, chaos bool) *scene {
	t.Helper()
	s := emptyScene(t, seed, chaos)
	s.makePrimary(t.Context())
	return s
}

// emptyScene is two clusters that are set up for mirroring.
func emptyScene(t *testing.T, seed uint64, chaos bool) *scene {
	t.Helper()
	s := &scene{t: t, rng: rand.New(rand.NewPCG(seed, 1)), model: make([]byte, imageSize)}
	faults := func(n uint64) mem.Faults {
		if !chaos {
			return mem.FaultFunc(s.judge)
		}
		return faulty(seed+n, &s.trusted)
	}
	s.remote = mem.New(mem.Options{FSID: "remote", Faults: faults(1), WatchTimeout: 300 * time.Millisecond, Config: options})
	s.local = mem.New(mem.Options{FSID: "local", Faults: faults(2), WatchTimeout: 300 * time.Millisecond, Config: options})
	ctx := t.Context()
	for store, uuid := range map[*mem.Store]string{s.remote: "remote-uuid", s.local: "local-uuid"} {
		store.AddPool("rbd")
		client := store.Connect()
		s.trusted.Store(client, true)
		io := must(client.Open(ctx, "rbd", ""))(t)
		check(t, rados.Tell(ctx, io, mirror.Object, mirror.SetUUID(uuid)))
		check(t, rados.Tell(ctx, io, mirror.Object, mirror.SetMode(mirror.ModePool)))
		if store == s.remote {
			s.primary = io
		}
	}
	return s
}

// makePrimary makes the remote image: as a copy of somebody's with something in it,
// which only a sync can bring over, then promoted.
func (s *scene) makePrimary(ctx context.Context) {
	_, err := image.Create(ctx, s.primary, image.CreateSpec{
		ID: "r1", Name: "vm", GlobalID: globalID, RemoteMirrorUUID: "somebody", Size: imageSize, Order: objectOrder,
		Features: rbd.FeatureExclusiveLock | rbd.FeatureJournaling | rbd.FeatureObjectMap | rbd.FeatureFastDiff,
	})
	check(s.t, err)
	fill(s.rng, s.model[:imageSize*3/4])
	check(s.t, s.librbd("r1").with(ctx, func(im *image.Image) error {
		_, err := im.Apply(ctx, []image.IO{{Kind: image.Write, Length: imageSize * 3 / 4, Data: s.model[:imageSize*3/4]}})
		return err
	}))
	j := must(journal.Open(ctx, s.primary, "r1"))(s.t)
	defer j.Close()
	s.tag = must(j.AllocateTag(ctx, 0, wire.TagData{MirrorUUID: wire.LocalMirrorUUID}))(s.t)
}

// append journals an event as the primary would.
func (s *scene) append(ev wire.Event) {
	payload := wire.Marshal(wire.EventEntry{Event: ev, Timestamp: time.Now()})
	entry := wire.Marshal(wire.Entry{Tag: s.tag.TID, TID: s.next, Payload: payload})
	object := wire.DataObject(s.primary.Pool().ID, "r1", wire.ObjectNumber(uint64(s.next)%4))
	check(s.t, s.primary.Write(s.t.Context(), object, new(rados.WriteOp).Append(entry)))
	s.next++
}

// happen makes something happen on the primary.
func (s *scene) happen() {
	offset := s.rng.Uint64N(imageSize-64<<10) &^ 511
	length := 512 + s.rng.Uint64N(60<<10)&^511
	switch s.rng.IntN(12) {
	case 0:
		s.append(wire.AioFlush{})
	case 1:
		s.append(wire.AioDiscard{Offset: offset, Length: length})
		clear(s.model[offset : offset+length])
	case 2:
		pattern := []byte{byte(s.rng.Uint32()), byte(s.rng.Uint32())}
		s.append(wire.AioWriteSame{Offset: offset, Length: length, Data: pattern})
		copy(s.model[offset:], bytes.Repeat(pattern, int(length/2)))
	case 3:
		compare := bytes.Clone(s.model[offset : offset+512])
		if s.rng.IntN(2) == 0 {
			compare[7]++ // it fails on the primary, and has to fail here
		} else {
			fill(s.rng, s.model[offset:offset+512])
		}
		data := bytes.Clone(s.model[offset : offset+512])
		s.append(wire.AioCompareAndWrite{Offset: offset, Length: 512, CompareData: compare, WriteData: data})
	case 4:
		s.op++
		s.append(wire.SnapCreate{Op: s.op, Name: fmt.Sprintf("snap-%d", s.op)})
		s.append(wire.OpFinish{Op: s.op})
	default:
		data := make([]byte, length)
		fill(s.rng, data)
		s.append(wire.AioWrite{Offset: offset, Length: length, Data: data})
		copy(s.model[offset:], data)
	}
}

func fill(rng *rand.Rand, b []byte) {
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
}

// worker is one life of a worker process.
type worker struct {
	local, remote *mem.Client
	there         rados.IOContext // what remote opened
	system        *actor.ActorSystem
	pool          *actor.PID

	mu     sync.Mutex
	status report.Image
}

func (w *worker) Set(_ string, r report.Image) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.status = r
}
func (w *worker) Remove(string)         {}
func (w *worker) Forget(string)         {}
func (w *worker) Close(context.Context) {}

func (w *worker) said() report.Image {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.status
}

// start starts a worker under new identities.
func (s *scene) start() *worker {
	w := &worker{
		local: s.local.Connect(), remote: s.remote.Connect(),
		system: actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.DiscardHandler) })),
	}
	ctx := s.t.Context()
	here := replayer.Site{IO: must(w.local.Open(ctx, "rbd", ""))(s.t), MirrorUUID: "local-uuid"}
	there := replayer.Site{IO: must(w.remote.Open(ctx, "rbd", ""))(s.t), MirrorUUID: "remote-uuid"}
	w.there = there.IO
	spawned := make(chan struct{})
	defer close(spawned)
	var epoch uint64
	w.pool = w.system.Root.Spawn(pool.Props(pool.Options{
		Key: messages.PoolKey{Pool: "rbd"}, Local: here, Status: w,
		Listed: func(ids []string, _ bool) { // this worker runs them all
			<-spawned
			epoch++
			share := pool.Share{Epoch: epoch, Run: map[string]struct{}{}}
			for _, id := range ids {
				share.Run[id] = struct{}{}
			}
			w.system.Root.Send(w.pool, share)
		},
		Connect: func(context.Context) (*pool.Remote, error) { return &pool.Remote{Site: there, Close: func() {}}, nil },
		List: func(ctx context.Context, io rados.IOContext) (ids []string, err error) {
			err = mirrorpool.ListImages(ctx, io, func(_, id string) bool { ids = append(ids, id); return true })
			return ids, err
		},
		Watch: func(context.Context, rados.IOContext, func(string)) (func(), error) { return func() {}, nil },
		NewImage: func(key messages.ImageKey, _ *pool.Remote, _ config.Halt, _ messages.Past) actor.Actor {
			return s.newImage(key, here, there)
		},
		Refresh: 20 * time.Millisecond, Timeout: 10 * time.Second,
		Strategy: supervision.Strategy{Min: time.Millisecond, Max: 10 * time.Millisecond, Factor: 2, Intensity: 1000, Window: time.Minute, ParkedRetry: time.Second, Calm: time.Second},
		Log:      zerolog.Nop(),
	}))
	s.t.Cleanup(w.die)
	return w
}

func (s *scene) newImage(key messages.ImageKey, here, there replayer.Site) actor.Actor {
	resources := replayer.Resources{
		Local: here, Remote: there, GlobalID: key.GlobalID,
		SyncSlot: func(context.Context, func()) (func(), error) { return func() {}, nil },
		Timeout:  10 * time.Second,
		Lock: lock.Options{
			RetryDelay: 5 * time.Millisecond, DeadGrace: 20 * time.Millisecond, RewatchGrace: time.Second,
			NotifyTimeout: 100 * time.Millisecond, ReleaseWait: 50 * time.Millisecond,
			WatchTimeout: 300 * time.Millisecond, CheckInterval: 20 * time.Millisecond, CleanupTimeout: time.Second,
			ReacquireTimeout: time.Second,
		},
		RemoteSnapshots:    s.remoteSnapshots,
		Tail:               journal.TailConfig{Budget: 1 << 20, MinPoll: time.Millisecond, MaxPoll: 10 * time.Millisecond, Recheck: 50 * time.Millisecond},
		Trashed:            func() {},
		CheckpointInterval: time.Millisecond, Log: zerolog.Nop(),
		NewCredit: s.credit, NewUrgentCredit: s.urgent, Pace: s.pace,
	}
	return replayer.New(replayer.Options{
		Key: key,
		Core: core.Config{
			LocalMirrorUUID: here.MirrorUUID, RemoteMirrorUUID: there.MirrorUUID, CommitInterval: 5 * time.Millisecond,
			ReadBytes: 256 << 10, BufferBytes: 512 << 10, MaxStepBytes: 128 << 10, MaxStepOps: 8,
		},
		NewPerformer: func(notify func(core.Msg)) replayer.Performer { return replayer.NewPerformer(resources, notify) },
		Retry: func(cause core.StopCause, _ int) (time.Duration, bool) {
			_, again := replayer.Retry(cause, 1, 0)
			return 5 * time.Millisecond, again
		},
		Log: zerolog.Nop(), CloseTimeout: 10 * time.Second, Patience: s.patience,
	})
}

// snapshots makes sync points as librbd would, without its journalling.
type snapshots struct {
	io   rados.IOContext
	id   string
	turn *sync.Mutex
}

func (s *scene) librbd(id string) snapshots { return snapshots{s.primary, id, &s.opening} }

func (s snapshots) with(ctx context.Context, fn func(*image.Image) error) error {
	s.turn.Lock()
	defer s.turn.Unlock()
	im, err := image.Open(ctx, s.io, s.id, image.Options{AllowPrimary: true})
	if err != nil {
		return err
	}
	return errors.Join(fn(im), im.Close(ctx))
}

func (s snapshots) Create(ctx context.Context, name string) error {
	return s.with(ctx, func(im *image.Image) error {
		_, out, err := im.SnapCreate(ctx, rbd.UserSnapshot{}, name)
		if err == nil && out == image.AlreadyDone {
			return syscall.EEXIST
		}
		return err
	})
}

func (s snapshots) Remove(ctx context.Context, name string) error {
	return s.with(ctx, func(im *image.Image) error {
		_, err := im.SnapRemove(ctx, rbd.UserSnapshot{}, name)
		return err
	})
}

// caughtUp waits until the worker says that everything was applied and committed.
func (s *scene) caughtUp(w *worker) {
	s.t.Helper()
	var why string
	for deadline := time.Now().Add(60 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) {
		if why = s.behind(); why == "" {
			return
		}
	}
	s.t.Fatalf("never caught up: %s; the worker says %+v", why, w.said())
}

// behind tells what the commit position lacks.
func (s *scene) behind() string {
	j, err := journal.Open(s.t.Context(), s.primary, "r1")
	if err != nil {
		return err.Error()
	}
	defer j.Close()
	c, err := j.Client(s.t.Context(), "local-uuid")
	if err != nil {
		return err.Error()
	}
	at, _ := c.CommitPosition.Newest()
	if at.Tag != s.tag.TID || at.Entry != s.next-1 {
		return fmt.Sprintf("committed %v of entry %d, tag %d", at, s.next-1, s.tag.TID)
	}
	return ""
}

// equal compares the local image with the model.
func (s *scene) equal() {
	s.t.Helper()
	ctx := s.t.Context()
	io := s.trustedLocal()
	id, _, err := mirrorpool.FindImage(ctx, io, globalID)
	check(s.t, err)
	h := must(image.ReadHeader(ctx, io, id))(s.t)
	s.holds(io, id, ceph.NoSnap, s.model)
	names := map[string]bool{}
	for _, snap := range h.Snapshots {
		if snap.Namespace != nil && snap.Namespace.Kind() == rbd.SnapshotTrash {
			s.t.Errorf("snapshot %d was left in the trash", snap.ID)
		}
		names[snap.Name] = true
	}
	for op := wire.OpTID(1); op <= s.op; op++ {
		if op == s.flattened {
			continue
		}
		if name := fmt.Sprintf("snap-%d", op); !names[name] {
			s.t.Errorf("%s is missing", name)
		}
	}
}

// holds compares an image at a snapshot, or its head, with what it ought to hold.
func (s *scene) holds(io rados.IOContext, id string, snap ceph.SnapID, want []byte) {
	s.t.Helper()
	r := must(image.OpenReader(s.t.Context(), io, id, snap))(s.t)
	defer r.Close()
	got := image.Flat(must(r.Read(s.t.Context(), 0, r.Size()))(s.t), 0, r.Size())
	if !bytes.Equal(got, want) {
		at := 0
		for at < min(len(got), len(want)) && got[at] == want[at] {
			at++
		}
		s.t.Fatalf("image %s at snapshot %d has %d bytes and differs from byte %d on; it should have %d", id, snap, len(got), at, len(want))
	}
}

// trustedLocal is a connection without chaos.
func (s *scene) trustedLocal() rados.IOContext {
	client := s.local.Connect()
	s.trusted.Store(client, true)
	return must(client.Open(s.t.Context(), "rbd", ""))(s.t)
}

func (s *scene) stop(w *worker) {
	if _, err := w.system.Root.RequestFuture(w.pool, pool.Stop{}, 30*time.Second).Result(); err != nil {
		s.t.Errorf("stop: %v", err)
	}
	w.system.Shutdown()
}

// die ends a worker as kill -9 does: nothing it does from here on has an effect.
func (w *worker) die() {
	w.local.Crash()
	w.remote.Crash()
	w.system.Root.Stop(w.pool) // what is left of it here ends
}

// inBubble runs a test in a time of its own, which passes only while everything waits: so
// time-outs and deadlines mean the same on a busy machine as on an idle one.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		t.Cleanup(func() { time.Sleep(time.Minute) }) // what dead workers have left comes to its end
		test(t)
	})
}

func TestReplayInMemory(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 1, false)
		for range 40 {
			s.happen()
		}
		w := s.start()
		s.caughtUp(w)
		for range 100 {
			s.happen()
		}
		s.caughtUp(w)
		s.stop(w)
		s.equal()
		if b := s.local.Blocklisted(); len(b) > 0 {
			t.Errorf("a clean run blocklisted %v", b)
		}
	})
}

// Whatever fails, is lost, comes late, or dies: the copy is right in the end.
func TestReplaySurvives(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+uint64(*seeds); seed++ {
		t.Run(fmt.Sprintf("seed-%d", seed), func(t *testing.T) {
			t.Parallel()
			inBubble(t, func(t *testing.T) {
				s := newScene(t, seed, true)
				w := s.start()
				for range s.rng.IntN(4) { // in the sync
					time.Sleep(time.Duration(s.rng.IntN(80)) * time.Millisecond)
					w.die()
					w = s.start()
				}
				for round := range 6 {
					for range 25 {
						s.happen()
					}
					time.Sleep(time.Duration(s.rng.IntN(30)) * time.Millisecond) // so that workers die in different places
					if round%2 == 1 {
						w.die()
						w = s.start()
					}
				}
				s.caughtUp(w)
				s.equal()
				w.die()
			})
		})
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func must[T any](v T, err error) func(t *testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		check(t, err)
		return v
	}
}

// Mirroring that is disabled on the primary is not notified at its journal, and an idle replay meets no error either. The
// copy goes all the same: were the image enabled again, another copy would use the same client of the same journal.
func TestReplayEndsWhenMirroringIsDisabled(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		s := newScene(t, 2, false)
		s.happen()
		w := s.start()
		s.caughtUp(w)
		_, record, err := mirrorpool.FindImage(t.Context(), s.primary, globalID)
		check(t, err)
		record.State = mirror.ImageDisabling
		check(t, rados.Tell(t.Context(), s.primary, mirror.Object, mirror.ImageSet("r1", record)))
		check(t, rados.Tell(t.Context(), s.primary, mirror.Object, mirror.ImageRemove("r1")))
		io := s.trustedLocal()
		for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			_, _, err := mirrorpool.FindImage(t.Context(), io, globalID)
			if errors.Is(err, syscall.ENOENT) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the copy of an image that is not mirrored stays (%v); the worker says %+v", err, w.said())
			}
		}
		s.stop(w)
	})
}

// A start that comes while the image is still stopping is not lost.
func TestStartOfAStoppingImage(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T) {
		for _, command := range []messages.ToImage{messages.StartImage{}, messages.PauseImage{Reason: "by a test"}} {
			s := newScene(t, 3, false)
			s.happen()
			w := s.start()
			s.caughtUp(w)
			tell := func(m messages.ToImage) {
				w.system.Root.Send(w.pool, messages.ToImageNamed{GlobalID: globalID, Message: m})
			}
			tell(messages.StopImage{Reason: "by a test"})
			tell(command)
			if _, pauses := command.(messages.PauseImage); pauses {
				s.until("it is paused", func() bool { return w.said().Step == core.Paused.String() })
				tell(messages.StartImage{})
			}
			s.happen()
			s.caughtUp(w)
			s.stop(w)
			s.equal()
		}
	})
}
