//go:build live

package mem

import (
	"context"
	"fmt"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph"
	"github.com/rbdwarden/rbdwarden/ceph/class"
	"github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/ceph/lock"
	"github.com/rbdwarden/rbdwarden/ceph/mirror"
	"github.com/rbdwarden/rbdwarden/ceph/rbd"
	"github.com/rbdwarden/rbdwarden/rados"
)

// omapOf compares the keys of an object, which are the class's own business, but what
// other clients read.
func omapOf(object string) action {
	return action{object + ": omap", func(ctx context.Context, w world) (any, error) {
		var op rados.ReadOp
		list := op.ListOmap("", "", 1000)
		err := w.io.Read(ctx, object, &op)
		return sortedKeys(list.Pairs), err
	}}
}

func TestLiveJournalClass(t *testing.T) {
	const object = "journal.x"
	real, fake := worlds(t)
	next := uint64(0)
	play(t, real, fake, 1500, func(d dice) action {
		id, n := d.pick("", "a", "b"), uint64(d.IntN(5))
		switch d.IntN(16) {
		case 0:
			return tell("create", object, journal.Create(24, 4, int64(d.IntN(3))-1))
		case 1:
			return tell(fmt.Sprint("minimum set ", n), object, journal.SetMinimumSet(journal.ObjectSet(n)))
		case 2:
			return tell(fmt.Sprint("active set ", n), object, journal.SetActiveSet(journal.ObjectSet(n)))
		case 3:
			return ask("get minimum set", object, journal.GetMinimumSet())
		case 4:
			return tell("register "+id, object, journal.ClientRegister(id, d.bytes(3)))
		case 5:
			if d.IntN(5) == 0 {
				return tell("unregister "+id, object, journal.ClientUnregister(id))
			}
			return tell("update data "+id, object, journal.ClientUpdateData(id, d.bytes(2)))
		case 6:
			return tell("update state "+id, object, journal.ClientUpdateState(id, journal.ClientState(d.IntN(2))))
		case 7, 8:
			var p journal.ObjectSetPosition
			for i := range d.IntN(6) {
				p = append(p, journal.ObjectPosition{Object: journal.ObjectNumber(i), Tag: journal.TagTID(uint64(d.IntN(int(next) + 1))), Entry: journal.EntryTID(n)})
			}
			return tell(fmt.Sprint("commit ", id, p), object, journal.ClientCommit(id, p))
		case 9, 10:
			tid, c := next, journal.TagClass(d.IntN(3))
			if d.IntN(4) == 0 {
				c = journal.NewTagClass
			}
			if d.IntN(6) == 0 {
				tid = n
			}
			return action{fmt.Sprintf("tag %d class %d", tid, c), func(ctx context.Context, w world) (any, error) {
				err := rados.Tell(ctx, w.io, object, journal.TagCreate(journal.TagTID(tid), c, []byte{1}))
				if err == nil {
					next = tid + 1
				}
				return nil, err
			}}
		case 11:
			return ask("get client "+id, object, journal.GetClient(id))
		case 12:
			return ask("list clients", object, journal.ClientList(id, 1+n))
		case 13:
			var c *journal.TagClass
			if d.IntN(2) == 0 {
				v := journal.TagClass(d.IntN(3))
				c = &v
			}
			return ask("list tags "+id, object, journal.TagList(journal.TagTID(n), 1+uint64(d.IntN(9)), id, c))
		case 14:
			return ask("get tag", object, journal.GetTag(journal.TagTID(n)))
		}
		return omapOf(object)
	})
}

func TestLiveHeaderClass(t *testing.T) {
	const object = "rbd_header.x"
	real, fake := worlds(t)
	snaps := []ceph.SnapID{ceph.NoSnap, 1}
	created := false
	play(t, real, fake, 2500, func(d dice) action {
		if !created || d.IntN(60) == 0 {
			created = true
			features := rbd.FeatureLayering | rbd.FeatureExclusiveLock | rbd.FeatureObjectMap
			if d.IntN(2) == 0 {
				features |= rbd.FeatureDeepFlatten | rbd.FeatureStriping
			}
			if d.IntN(3) == 0 {
				return tell("remove and create", object, rbd.Create(1<<20, 22, features, "rbd_data.x", rbd.NoDataPool))
			}
			return tell("create", object, rbd.Create(1<<22, 22, features, "rbd_data.x", rbd.NoDataPool))
		}
		snap := snaps[d.IntN(len(snaps))]
		size := uint64(1+d.IntN(9)) << 20
		spec := rbd.ParentSpec{Pool: 1, Namespace: d.pick("", "ns"), ImageID: "p", Snap: 4}
		child := rbd.ChildSpec{Pool: 2, ImageID: d.pick("c1", "c2")}
		switch d.IntN(26) {
		case 0, 1, 2:
			id := snaps[len(snaps)-1] + 1 // the class does not ask where ids come from
			if snaps = append(snaps, id); d.IntN(8) == 0 {
				id = snap
			}
			return tell(fmt.Sprint("snapshot add ", id), object, rbd.SnapshotAdd(id, d.pick("s", "t", "u", "v"), rbd.UserSnapshot{}))
		case 3, 4:
			return tell(fmt.Sprint("snapshot remove ", snap), object, rbd.SnapshotRemove(snap))
		case 5:
			return tell(fmt.Sprint("snapshot rename ", snap), object, rbd.SnapshotRename(snap, d.pick("s", "t", "w")))
		case 6:
			return tell(fmt.Sprint("protect ", snap), object, rbd.SetProtection(snap, rbd.Protection(d.IntN(4))))
		case 7:
			return ask("protection", object, rbd.GetProtection(snap))
		case 8:
			return ask("snapcontext", object, rbd.GetSnapContext())
		case 9:
			return ask("snapshot get", object, rbd.SnapshotGet(snap))
		case 10:
			return tell(fmt.Sprint("limit ", size>>21), object, rbd.SnapshotSetLimit(size>>20))
		case 11:
			return tell("no limit", object, rbd.SnapshotSetLimit(rbd.NoSnapshotLimit))
		case 12:
			return tell(fmt.Sprint("set size ", size), object, rbd.SetSize(size))
		case 13:
			return ask("size", object, rbd.GetSize(snap))
		case 14:
			return tell("set features", object, rbd.SetFeatures(rbd.Features(d.IntN(1<<11)), rbd.Features(1<<d.IntN(12))))
		case 15:
			return ask("features", object, rbd.GetFeatures(d.IntN(2) == 0))
		case 16:
			return tell("set flags", object, rbd.SetFlags(snap, rbd.Flags(d.IntN(4)), rbd.Flags(d.IntN(4))))
		case 17:
			return tell("op features", object, rbd.SetOpFeatures(rbd.OpFeatures(d.IntN(20)), rbd.OpFeatures(d.IntN(20))))
		case 18:
			return tell("attach parent", object, rbd.ParentAttach(spec, size, d.IntN(3) == 0))
		case 19:
			return tell("detach parent", object, rbd.ParentDetach())
		case 20:
			return ask("parent overlap", object, rbd.ParentOverlapGet(snap))
		case 21:
			return tell("child attach", object, rbd.ChildAttach(snap, child))
		case 22:
			return tell("child detach", object, rbd.ChildDetach(snap, child))
		case 23:
			return ask("children", object, rbd.ChildrenList(snap))
		case 24:
			return headerAction(object)
		}
		return omapOf(object)
	})
}

// headerAction compares all that a client reads to open an image.
func headerAction(object string) action {
	return action{object + ": header", func(ctx context.Context, w world) (any, error) {
		var op rados.ReadOp
		var steps []*rados.ReadStep
		for _, c := range rbd.HeaderCalls(false) {
			steps = append(steps, op.Exec(c))
		}
		if err := w.io.Read(ctx, object, &op); err != nil {
			return nil, err
		}
		var replies [][]byte
		for _, s := range steps {
			replies = append(replies, s.Data)
		}
		return rbd.DecodeHeader(replies)
	}}
}

func TestLiveDirectoryClass(t *testing.T) {
	real, fake := worlds(t)
	play(t, real, fake, 1500, func(d dice) action {
		name, other, id := d.pick("n", "m", "", "o"), d.pick("n", "p"), d.pick("1", "2", "3", "?")
		const dir, trash, meta, ids = "rbd_directory", "rbd_trash", "rbd_info", "rbd_id.n"
		switch d.IntN(22) {
		case 0, 1:
			return tell("add "+name+id, dir, rbd.DirAddImage(name, id))
		case 2:
			return tell("remove "+name+id, dir, rbd.DirRemoveImage(name, id))
		case 3:
			return tell("rename "+name+other+id, dir, rbd.DirRenameImage(name, other, id))
		case 4:
			return ask("id of "+name, dir, rbd.DirGetID(name))
		case 5:
			return ask("name of "+id, dir, rbd.DirGetName(id))
		case 6:
			return ask("list", dir, rbd.DirList(name, 1+uint64(d.IntN(3))))
		case 7:
			return tell("state", dir, rbd.DirStateSet(rbd.DirectoryState(d.IntN(3))))
		case 8:
			return tell("assert state", dir, rbd.DirStateAssert(rbd.DirectoryState(d.IntN(2))))
		case 9:
			return tell("trash "+id, trash, rbd.TrashAdd(id, rbd.TrashSpec{Name: name, Source: rbd.TrashUser}))
		case 10:
			return tell("untrash "+id, trash, rbd.TrashRemove(id))
		case 11:
			return ask("trash of "+id, trash, rbd.TrashGet(id))
		case 12:
			return ask("trash", trash, rbd.TrashList(id, 2))
		case 13:
			return tell("trash state "+id, trash, rbd.TrashStateSet(id, rbd.TrashState(d.IntN(3)), rbd.TrashState(d.IntN(3))))
		case 14:
			return tell("metadata set", meta, rbd.MetadataSet(map[string][]byte{name: d.bytes(2), other: nil}))
		case 15:
			return tell("metadata remove "+name, meta, rbd.MetadataRemove(name))
		case 16:
			return ask("metadata "+name, meta, rbd.MetadataGet(name))
		case 17:
			return ask("metadata list", meta, rbd.MetadataList(name, uint64(d.IntN(3))))
		case 18:
			return action{"set id", func(ctx context.Context, w world) (any, error) {
				return nil, w.io.Write(ctx, ids, new(rados.WriteOp).Create(false).Exec(rbd.SetID(id)))
			}}
		case 19:
			return ask("get id", ids, rbd.GetID())
		case 20:
			return tell("namespace "+name, "rbd_namespace", rbd.NamespaceAdd(name))
		}
		return omapOf(d.pick(dir, trash, meta, "rbd_namespace"))
	})
}

func TestLiveObjectMapClass(t *testing.T) {
	const object = "rbd_object_map.x"
	real, fake := worlds(t)
	play(t, real, fake, 1500, func(d dice) action {
		start, n := uint64(d.IntN(40)), uint64(d.IntN(12))
		state := rbd.ObjectState(d.IntN(4))
		m := rbd.NewObjectMap(start)
		for i := range start {
			m.Set(i, rbd.ObjectState(d.IntN(4)))
		}
		data := d.pick("data", "data2")
		switch d.IntN(10) {
		case 0:
			return tell("save", object, rbd.ObjectMapSave(m))
		case 1:
			return tell(fmt.Sprint("resize ", start, state), object, rbd.ObjectMapResize(start, state))
		case 2:
			return tell("snap add", object, rbd.ObjectMapSnapAdd())
		case 3:
			return tell("snap remove", object, rbd.ObjectMapSnapRemove(m))
		case 4:
			return action{"load", func(ctx context.Context, w world) (any, error) {
				m, err := rados.Ask(ctx, w.io, object, rbd.ObjectMapLoad())
				if err != nil {
					return nil, err
				}
				return rbd.ObjectMapSave(m).In, nil
			}}
		case 5:
			return tell("copy up", data, rbd.CopyUp(d.bytes(3)))
		case 6:
			return tell("sparse copy up", data, rbd.SparseCopyUp(map[uint64]uint64{1: 2, 5000: 1}, d.bytes(3)))
		case 7:
			return action{data + ": read", func(ctx context.Context, w world) (any, error) {
				var op rados.ReadOp
				r := op.Read(0, 1<<20)
				err := w.io.Read(ctx, data, &op)
				return r.Data, err
			}}
		case 8:
			return action{data + ": remove", func(ctx context.Context, w world) (any, error) {
				return nil, w.io.Write(ctx, data, new(rados.WriteOp).Remove())
			}}
		}
		var current *rbd.ObjectState
		if d.IntN(2) == 0 {
			v := rbd.ObjectState(d.IntN(4))
			current = &v
		}
		return tell(fmt.Sprint("update ", start, n, state), object, rbd.ObjectMapUpdate(start, start+n, state, current))
	})
}

func TestLiveMirrorClass(t *testing.T) {
	real, fake := worlds(t)
	const pool, leader = mirror.Object, mirror.LeaderObject
	play(t, real, fake, 2000, func(d dice) action {
		id, global, site, peer := d.pick("1", "2", "3"), d.pick("g1", "g2"), d.pick("s", "r"), d.pick("p", "q", "u")
		switch d.IntN(22) {
		case 0:
			return tell("set uuid", pool, mirror.SetUUID(d.pick("", "u", "v")))
		case 1:
			return tell("set mode", pool, mirror.SetMode(mirror.Mode(d.IntN(4))))
		case 2:
			return ask("mode", pool, mirror.GetMode())
		case 3:
			return ask("uuid", pool, mirror.GetUUID())
		case 4:
			return tell("peer add "+peer+site, pool, mirror.PeerAdd(mirror.Peer{UUID: peer, SiteName: site,
				ClientName: d.pick("", "client.x"), Direction: mirror.Direction(d.IntN(3)), MirrorUUID: d.pick("", "m")}))
		case 5:
			return tell("peer remove "+peer, pool, mirror.PeerRemove(peer))
		case 6:
			return tell("peer client "+peer, pool, mirror.PeerSetClient(peer, d.pick("client.x", "client.y")))
		case 7:
			return tell("peer site "+peer, pool, mirror.PeerSetSite(peer, site))
		case 8:
			return ask("peers", pool, mirror.PeerList())
		case 9, 10:
			return tell("image set "+id+global, pool, mirror.ImageSet(id, mirror.Image{GlobalID: global, State: mirror.ImageState(d.IntN(4))}))
		case 11:
			return tell("image remove "+id, pool, mirror.ImageRemove(id))
		case 12:
			return ask("image "+id, pool, mirror.ImageGet(id))
		case 13:
			return ask("images", pool, mirror.ImageList(id, 2))
		case 14:
			return ask("image id "+global, pool, mirror.ImageGetID(global))
		case 15:
			return tell("set status "+global, pool, mirror.StatusSet(global, mirror.Status{MirrorUUID: d.pick(mirror.LocalUUID, "a", "b"),
				State: mirror.StatusState(d.IntN(7)), Description: d.pick("x", "y")}))
		case 16:
			if d.IntN(4) == 0 {
				return tell("down", pool, mirror.StatusRemoveDown())
			}
			return ask("status "+global, pool, mirror.StatusGet(global))
		case 17:
			return ask("statuses", pool, mirror.StatusList(d.pick("", "1"), 3))
		case 18:
			return ask("summary", pool, mirror.StatusSummary([]mirror.Peer{{UUID: "p", SiteName: "s",
				Direction: mirror.Direction(d.IntN(3)), MirrorUUID: d.pick("a", "b"), ClientName: "client.x"}}))
		case 19:
			return d.placement(leader, id, global)
		case 20:
			return omapOf(leader)
		}
		return omapOf(pool)
	})
}

func (d dice) placement(object, id, global string) action {
	calls := []class.Call{
		mirror.InstancesAdd(id), mirror.InstancesRemove(id),
		mirror.ImageMapUpdate(global, mirror.ImageMap{InstanceID: id, Data: mirror.PolicyData{}.Bytes()}), mirror.ImageMapRemove(global),
	}
	switch i := d.IntN(6); i {
	case 4:
		return ask("instances", object, mirror.InstancesList())
	case 5:
		return ask("image map", object, mirror.ImageMapList("", 5))
	default:
		return tell(fmt.Sprint("placement ", i, id, global), object, calls[i])
	}
}

func TestLiveLockClass(t *testing.T) {
	real, fake := worlds(t)
	play(t, real, fake, 1200, func(d dice) action {
		object, name, cookie, tag := d.pick("a", "b"), d.pick("l", "m"), d.pick("c1", "c2"), d.pick("", "t")
		kind := lock.Type(1 + d.IntN(3))
		switch d.IntN(7) {
		case 0, 1:
			return tell(fmt.Sprint("lock ", name, cookie, tag, kind), object, lock.Lock(lock.Request{Name: name, Type: kind, Cookie: cookie, Tag: tag, Flags: lock.Flags(d.IntN(3))}))
		case 2:
			return tell("unlock "+name+cookie, object, lock.Unlock(name, cookie))
		case 3:
			return tell("assert "+name+cookie+tag, object, lock.Assert(name, kind, cookie, tag))
		case 4:
			return tell("set cookie "+name+cookie+tag, object, lock.SetCookie(name, kind, cookie, tag, d.pick("c1", "c3")))
		case 5:
			return action{object + ": break " + name + cookie, func(ctx context.Context, w world) (any, error) {
				locker := lock.LockerID{Entity: lock.ClientName(w.io.Cluster().InstanceID()), Cookie: cookie}
				return nil, rados.Tell(ctx, w.io, object, lock.Break(name, locker))
			}}
		}
		return action{object + ": info " + name, func(ctx context.Context, w world) (any, error) {
			info, err := rados.Ask(ctx, w.io, object, lock.GetInfo(name))
			var who []string
			for _, l := range info.Lockers {
				who = append(who, l.Cookie)
			}
			return fmt.Sprint(info.Type, info.Tag, who), err
		}}
	})
}
