package main

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/admin"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// poolReplayer is rbd-mirror's word for a pool with one peer in one process. Our workers
// each have a part of it, and are shown together as the one process that operators know.
// Its namespaces are in the order of their names, the default one first.
type poolReplayer struct {
	workers    []int         // that have a part in it
	report     report.Worker // the leader's, or the first of them
	syncs      report.Slots  // of all
	deletions  report.Slots
	namespaces []report.Pool // of all workers together
}

// pool is what all namespaces have in common.
func (p *poolReplayer) pool() report.Pool { return p.namespaces[0] }

// poolReplayers sorts a report into pools with peers, as rbd-mirror orders them: by the
// pool's id, then by the peer's uuid. A pool without a peer has no replayer.
func poolReplayers(d report.Daemon) []*poolReplayer {
	var all []*poolReplayer
	for i, w := range d.Workers {
		for _, p := range w.Pools {
			if p.Peer.UUID == "" {
				continue
			}
			at := slices.IndexFunc(all, func(r *poolReplayer) bool {
				return r.pool().ID == p.ID && r.pool().Peer.UUID == p.Peer.UUID
			})
			if at < 0 {
				at = len(all)
				all = append(all, &poolReplayer{report: w})
			}
			all[at].add(i, w, p)
		}
	}
	for _, r := range all {
		slices.SortFunc(r.namespaces, func(a, b report.Pool) int { return cmp.Compare(a.Namespace, b.Namespace) })
	}
	slices.SortStableFunc(all, func(a, b *poolReplayer) int {
		return cmp.Or(cmp.Compare(a.pool().ID, b.pool().ID), cmp.Compare(a.pool().Peer.UUID, b.pool().Peer.UUID))
	})
	return all
}

// add adds a worker's part of a namespace.
func (p *poolReplayer) add(worker int, w report.Worker, part report.Pool) {
	if !slices.Contains(p.workers, worker) {
		p.workers = append(p.workers, worker)
		p.syncs, p.deletions = p.syncs.Plus(w.Syncs), p.deletions.Plus(w.Deletions)
	}
	if part.Leader || p.report.PID == 0 {
		p.report = w
	}
	at := slices.IndexFunc(p.namespaces, func(ns report.Pool) bool { return ns.Namespace == part.Namespace })
	if at < 0 {
		p.namespaces = append(p.namespaces, part)
		return
	}
	ns := &p.namespaces[at]
	images, callouts, stopped := slices.Concat(ns.Images, part.Images), ns.Callouts, ns.Stopped && part.Stopped
	for _, c := range part.Callouts {
		if !slices.Contains(callouts, c) {
			callouts = append(slices.Clip(callouts), c)
		}
	}
	health, trash := worse(ns.Health, part.Health), slices.Concat(ns.Trash, part.Trash) // only a leader has any
	if part.Leader {
		*ns = part // whose instance leads, and is told as the process's
	}
	ns.Images, ns.Callouts, ns.Health, ns.Stopped, ns.Trash = images, callouts, health, stopped, trash
}

// worse is the worse of two healths.
func worse(a, b report.Health) report.Health {
	order := []report.Health{report.HealthOK, report.HealthUnknown, report.HealthWarning, report.HealthError}
	if slices.Index(order, b) > slices.Index(order, a) {
		return b
	}
	return a
}

// mirrorVerbs are the commands that mirroring, a pool, and an image have.
var mirrorVerbs = []string{"start", "stop", "restart", "flush"}

// mirrorCommands are those of rbd-mirror (src/tools/rbd_mirror/{Mirror,PoolReplayer,
// ImageReplayer,ImageDeleter}.cc): for all, for each pool with the name of its peer's
// site, for each image.
func (a *adminServer) mirrorCommands(d report.Daemon) []admin.Command {
	replayers := poolReplayers(d)
	commands := a.scopeCommands("", mirrorStatus(replayers), func(ctx context.Context, verb string) error {
		return a.mirror(ctx, verb, &controlv1.Target{})
	})
	commands = append(commands, a.leaderCommand("", func(ctx context.Context) error { return a.release(ctx, "") }))
	seen := map[string]bool{}
	for _, r := range replayers {
		p := r.pool()
		if name := p.Name + " " + p.Peer.Site; p.Peer.Site != "" && !seen[name] {
			seen[name] = true
			commands = append(commands, a.scopeCommands(" "+name, poolStatus(r), func(ctx context.Context, verb string) error {
				return a.mirror(ctx, verb, &controlv1.Target{Pool: p.Name})
			})...)
			commands = append(commands, a.leaderCommand(" "+name, func(ctx context.Context) error {
				return a.release(ctx, p.Name)
			}))
		}
		if name := p.Name; !seen[name] {
			seen[name] = true
			commands = append(commands, admin.Command{
				Prefix: "rbd mirror deletion status " + name, Help: "get status for image deleter",
				Run: answer(deleterStatus(r.namespaces)),
			})
		}
		for _, ns := range r.namespaces {
			for _, i := range ns.Images {
				name := specOf(i)
				if seen[name] {
					continue
				}
				seen[name] = true
				target := &controlv1.Target{Pool: i.Pool, Namespace: i.Namespace, Image: i.GlobalID}
				commands = append(commands, a.scopeCommands(" "+name, imageStatus(i), func(ctx context.Context, verb string) error {
					return a.mirror(ctx, verb, target)
				})...)
			}
		}
	}
	return commands
}

// scopeCommands are the status and the verbs of one scope: all, a pool, an image.
func (a *adminServer) scopeCommands(scope string, status *admin.Value, do func(ctx context.Context, verb string) error) []admin.Command {
	commands := []admin.Command{{
		Prefix: "rbd mirror status" + scope, Help: "get status for rbd mirror" + scope, Run: answer(status),
	}}
	for _, verb := range mirrorVerbs {
		commands = append(commands, admin.Command{
			Prefix: "rbd mirror " + verb + scope, Help: verb + " rbd mirror" + scope,
			Run: func(ctx context.Context, _ admin.Args) (admin.Answer, error) { return admin.Answer{}, do(ctx, verb) },
		})
	}
	return commands
}

func (a *adminServer) leaderCommand(scope string, do func(ctx context.Context) error) admin.Command {
	return admin.Command{
		Prefix: "rbd mirror leader release" + scope, Help: "release rbd mirror leader" + scope,
		Run: func(ctx context.Context, _ admin.Args) (admin.Answer, error) { return admin.Answer{}, do(ctx) },
	}
}

func answer(v *admin.Value) func(context.Context, admin.Args) (admin.Answer, error) {
	return func(context.Context, admin.Args) (admin.Answer, error) { return admin.Answer{Value: v}, nil }
}

// mirrorPatience is how long the commands of the admin socket wait for their effect.
// rbd-mirror's return at once, but for flush; to wait for what has no effect yet is no
// error there.
var mirrorPatience = map[string]struct {
	verb    controlv1.Verb
	timeout time.Duration
}{
	"start":   {controlv1.Verb_VERB_START, 0},
	"restart": {controlv1.Verb_VERB_RESTART, 0},
	"stop":    {controlv1.Verb_VERB_STOP, 10 * time.Second},
	"flush":   {controlv1.Verb_VERB_FLUSH, 20 * time.Second},
}

// mirror gives a command to images. rbd-mirror answers nothing to one that worked.
func (a *adminServer) mirror(ctx context.Context, verb string, target *controlv1.Target) error {
	a.d.log.Info().Str("command", verb).Stringer("target", target).Msg("admin socket")
	m := mirrorPatience[verb]
	reply := a.d.command(ctx, &controlv1.CommandRequest{Verb: m.verb, Target: target, TimeoutNanos: m.timeout.Nanoseconds()}, nil)
	if reply.Code != 0 {
		return admin.Errorf(syscall.Errno(reply.Code), "%s", reply.Text)
	}
	for _, o := range reply.Outcomes {
		if code := syscall.Errno(o.Code); code != 0 && (code != syscall.EAGAIN || verb == "flush") {
			return admin.Errorf(code, "%s: %s", o.Image, o.Text)
		}
	}
	return nil
}

// release gives up the leadership of a pool, or of all.
func (a *adminServer) release(ctx context.Context, pool string) error {
	a.d.log.Info().Str("pool", pool).Msg("admin socket: leader release")
	for i := range a.d.workers {
		if _, err := a.call(ctx, i, &controlv1.CallRequest{Command: leaderRelease, Target: pool}); err != nil {
			return err
		}
	}
	return nil
}

// mirrorStatus is "rbd mirror status".
func mirrorStatus(replayers []*poolReplayer) *admin.Value {
	v := admin.NewObject("mirror_status")
	list := v.Array("pool_replayers")
	for _, r := range replayers {
		putPoolStatus(list.Object("pool_replayer_status"), r)
	}
	return v
}

// poolStatus is "rbd mirror status POOL SITE".
func poolStatus(r *poolReplayer) *admin.Value {
	v := admin.NewObject("pool_replayer_status")
	putPoolStatus(v, r)
	return v
}

// putPoolStatus has the keys of PoolReplayer::print_status, in its order.
func putPoolStatus(v *admin.Value, r *poolReplayer) {
	p := r.pool()
	v.String("peer", "uuid: "+p.Peer.UUID+" cluster: "+p.Peer.Site+" client: "+p.Peer.Client)
	v.String("pool", p.Name)
	v.String("instance_id", p.InstanceID)
	v.String("state", replayerState(r))
	leader := strings.TrimPrefix(p.LeaderID, "client.")
	if p.Leader {
		leader = p.InstanceID
	}
	v.String("leader_instance_id", leader)
	v.Bool("leader", p.Leader)
	if p.Leader {
		v.Array("instances").String("instance_id", p.InstanceID)
	}
	v.String("local_cluster_admin_socket", r.report.LocalSocket)
	v.String("remote_cluster_admin_socket", p.RemoteSocket)
	putThrottler(v.Object("sync_throttler"), r.syncs)
	putThrottler(v.Object("deletion_throttler"), r.deletions)
	images, deleter := []report.Image(nil), []report.Pool(nil)
	if p.Namespace == "" {
		images, deleter = p.Images, r.namespaces[:1]
	}
	putImages(v, images, deleter)
	namespaces := v.Array("namespaces")
	for i, ns := range r.namespaces {
		if ns.Namespace != "" {
			o := namespaces.Object("namespace")
			o.String("name", ns.Namespace)
			putImages(o, ns.Images, r.namespaces[i:i+1])
		}
	}
}

func putImages(v *admin.Value, images []report.Image, pools []report.Pool) {
	list := v.Array("image_replayers")
	images = slices.Clone(images)
	slices.SortFunc(images, func(a, b report.Image) int { return cmp.Compare(a.GlobalID, b.GlobalID) })
	for _, i := range images {
		putImage(list.Object("image_replayer"), i)
	}
	v.Object("image_deleter").Put(deleterStatus(pools))
}

// replayerState is a pool's state in rbd-mirror's words.
func replayerState(r *poolReplayer) string {
	p := r.pool()
	switch {
	case p.Stopped:
		return "stopped (manual)"
	case r.report.State == report.WorkerStopping || r.report.State == report.WorkerStopped:
		return "stopped"
	case p.Health == report.HealthError, len(p.Callouts) > 0 && !p.Peer.Reachable, r.report.PID == 0:
		return "error"
	}
	return "running"
}

func putThrottler(v *admin.Value, s report.Slots) {
	v.Int("max_parallel_requests", int64(s.Limit))
	v.Int("running_requests", int64(s.Running))
	v.Int("waiting_requests", int64(s.Waiting))
}

// imageStatus is "rbd mirror status POOL/IMAGE".
func imageStatus(i report.Image) *admin.Value {
	v := admin.NewObject("image_replayer")
	putImage(v, i)
	return v
}

func putImage(v *admin.Value, i report.Image) {
	v.String("name", specOf(i))
	v.String("state", imageState(i))
}

// specOf is POOL[/NAMESPACE]/IMAGE, with the global id until the name is known.
func specOf(i report.Image) string {
	name := i.Name
	if name == "" {
		name = i.GlobalID
	}
	if i.Namespace == "" {
		return i.Pool + "/" + name
	}
	return i.Pool + "/" + i.Namespace + "/" + name
}

// removing is the step in which a copy is deleted.
const removing = "REMOVE_LOCAL_IMAGE"

// imageState translates the step of an image (actors/replayer/core.State) into the state
// of rbd-mirror's image replayer (ImageReplayer::to_string).
func imageState(i report.Image) string {
	switch i.Step {
	case "", "STOPPED", "PAUSED":
		return "Stopped"
	case "REPLAYING", "GET_REMOTE_TAG", "ALLOCATE_LOCAL_TAG":
		return "Replaying"
	case "STOPPING", "CLOSE_LOCAL_IMAGE", removing:
		return "Stopping"
	}
	return "Starting"
}

// deleterStatus tells which copies are being deleted, and which wait: until their deferment ends, as upstream's, or to be
// tried again (ImageDeleter::DeleteInfo::print_status). The key "error" is ours.
func deleterStatus(pools []report.Pool) *admin.Value {
	v := admin.NewObject("image_deleter_status")
	queue := v.Array("delete_images_queue")
	for _, p := range pools {
		for _, i := range p.Images {
			if i.Step == removing {
				queue.Object("delete_info").String("image_id", i.LocalID)
			}
		}
	}
	failed := v.Array("failed_deletes_queue")
	for _, p := range pools {
		for _, d := range p.Trash {
			if d.Running {
				queue.Object("delete_info").String("image_id", d.ImageID)
				continue
			}
			o := failed.Object("delete_info")
			o.String("image_id", d.ImageID)
			o.String("error_code", errorText(d.Errno))
			o.Int("retries", int64(d.Retries))
			if d.Error != "" {
				o.String("error", d.Error)
			}
		}
	}
	return v
}

// errorText is an error number in Ceph's words (cpp_strerror).
func errorText(errno int) string {
	if errno == 0 {
		return "(0) Success"
	}
	// The C library's words begin with a capital, Go's do not.
	text := syscall.Errno(errno).Error()
	return fmt.Sprintf("(%d) %s%s", errno, strings.ToUpper(text[:1]), text[1:])
}

// workerPrefix is how a worker is told from the first one where names would collide.
func workerPrefix(index int) string {
	if index == 0 {
		return ""
	}
	return "worker" + strconv.Itoa(index) + "."
}
