package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	mirrorpool "github.com/rbdwarden/rbdwarden/mirror"
	clusterv1 "github.com/rbdwarden/rbdwarden/proto/cluster/v1"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// Calls of a worker.
const (
	drainCommand   = "drain"
	undrainCommand = "undrain"
)

// drain has this worker give its images away, in all pools and in those to come, or ends
// that.
func (w *wiring) drain(words string, on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.drained = ""; on {
		w.drained = cmp.Or(words, "drained")
	}
	w.log.Info().Bool("drain", on).Str("words", words).Msg("by command")
	for _, p := range w.parties {
		p.Drain(on)
	}
}

// parts are this worker's parts in pools, and who has told it to drain.
func (w *wiring) parts() (drained string, all []report.Part) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for id, p := range w.parties {
		part := p.Part()
		told := report.Part{PoolID: id, Images: part.Images, Takers: []string{}, Frozen: part.Frozen}
		for _, m := range part.Takers {
			told.Takers = append(told.Takers, m.Seat)
		}
		all = append(all, told)
	}
	slices.SortFunc(all, func(a, b report.Part) int { return cmp.Compare(a.PoolID, b.PoolID) })
	return w.drained, all
}

// calloutDrain says in the service map that this worker drains.
func (w *wiring) calloutDrain(pools map[int64]mirrorpool.ServicePool) {
	w.mu.Lock()
	words := w.drained
	w.mu.Unlock()
	if words == "" {
		return
	}
	for id, p := range pools {
		p.Callouts = append(p.Callouts, mirrorpool.Callout{Level: mirrorpool.CalloutInfo, Text: words + ": other daemons run the images"})
		pools[id] = p
	}
}

// seatOf is the seat of a worker of this daemon.
func seatOf(d report.Daemon, index int) string {
	return coordinator.Seat(seatHost(d.Host), d.PID, index)
}

// initialPIDNS is the pid namespace of who is in no container (PROC_PID_INIT_INO in Linux'
// include/linux/proc_ns.h).
const initialPIDNS = "pid:[4026531836]"

// seatHost is the host of a seat. Daemons in containers of one host may have its name, and the same
// small pids: of those the pid namespace is part of it.
func seatHost(name string) string {
	if ns, err := os.Readlink("/proc/self/ns/pid"); err == nil && ns != initialPIDNS {
		return name + "@" + strings.Trim(ns, "pid:[]")
	}
	return name
}

// nodeOf does what is asked of workers of this daemon, or has that of another name do it.
func (d *warden) nodeOf(ctx context.Context, r *controlv1.NodeRequest) *controlv1.NodeReply {
	if host, err := os.Hostname(); r.GetDaemon() == "" || err == nil && r.GetDaemon() == fmt.Sprintf("%s/%d", host, os.Getpid()) {
		return d.node(ctx, r)
	}
	failed := func(err error) *controlv1.NodeReply {
		return &controlv1.NodeReply{Code: int32(syscall.EHOSTDOWN), Text: fmt.Sprintf("daemon %s: %v", r.GetDaemon(), err)}
	}
	text, err := protojson.Marshal(r)
	if err != nil {
		return failed(err)
	}
	ctx, cancel := context.WithTimeout(ctx, clusterPatience)
	defer cancel()
	var said struct{ Reply []byte }
	if err := d.siteCall(ctx, clusterNode, map[string]string{"daemon": r.GetDaemon(), "request": string(text)}, &said); err != nil {
		return failed(err)
	}
	reply := &controlv1.NodeReply{}
	if err := protojson.Unmarshal(said.Reply, reply); err != nil {
		return failed(err)
	}
	return reply
}

// nodeOf asks the daemon of that name.
func (n *network) nodeOf(ctx context.Context, name, request string) ([]byte, error) {
	r := &controlv1.NodeRequest{}
	if err := protojson.Unmarshal([]byte(request), r); err != nil {
		return nil, fmt.Errorf("%w: %w", syscall.EINVAL, err)
	}
	r.Daemon = ""
	all, _ := n.neighbours()
	to, err := neighbourNamed(all, name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, neighbourPatience)
	defer cancel()
	a, err := n.question(ctx, to.living[0], &clusterv1.Question{What: &clusterv1.Question_Node{Node: r}})
	if err != nil {
		return nil, fmt.Errorf("%w: %w", syscall.EHOSTDOWN, err)
	}
	said, err := protojson.Marshal(a.GetNode())
	if err != nil {
		return nil, err
	}
	return json.Marshal(struct{ Reply []byte }{said})
}

// neighbourNamed is the living daemon of a name: HOST, PID or HOST/PID.
func neighbourNamed(all []*neighbour, name string) (*neighbour, error) {
	var found, living []string
	var is *neighbour
	for _, d := range all {
		if len(d.living) == 0 {
			continue
		}
		full := fmt.Sprintf("%s/%d", d.host, d.pid)
		living = append(living, full)
		if name == full || name == d.host || name == strconv.Itoa(d.pid) {
			found, is = append(found, full), d
		}
	}
	switch len(found) {
	case 1:
		return is, nil
	case 0:
		return nil, fmt.Errorf("there is no such daemon; of this site are %s: %w", list(living, 8, "none"), syscall.ENOENT)
	}
	return nil, fmt.Errorf("these are several: %s: %w", strings.Join(found, ", "), syscall.ENOTUNIQ)
}
