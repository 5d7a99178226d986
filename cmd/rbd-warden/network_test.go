package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/asynkron/protoactor-go/actor"
	"github.com/rs/zerolog"
	"google.golang.org/protobuf/proto"

	"github.com/rbdwarden/rbdwarden/cluster/coordinator"
	"github.com/rbdwarden/rbdwarden/cluster/membership"
	"github.com/rbdwarden/rbdwarden/cluster/transport"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
	"github.com/rbdwarden/rbdwarden/report"
)

// colleague is a worker of some daemon, with its network.
type colleague struct {
	*network
	member membership.Member

	mu    sync.Mutex
	hangs bool // its daemon answers nothing
	fails error
	asked []*controlv1.Ask
}

func (c *colleague) answerAsk(ctx context.Context, ask *controlv1.Ask) (*controlv1.Told, error) {
	c.mu.Lock()
	c.asked = append(c.asked, ask)
	hangs, fails := c.hangs, c.fails
	c.mu.Unlock()
	switch {
	case hangs:
		<-ctx.Done()
		return nil, errors.New("the daemon did not answer")
	case fails != nil:
		return nil, fails
	case ask.GetCommand() != nil:
		return &controlv1.Told{What: &controlv1.Told_Command{Command: &controlv1.CommandReply{
			Outcomes: []*controlv1.Outcome{{Image: ask.GetCommand().GetTarget().GetImage(), Text: "done by " + c.self}},
		}}}, nil
	}
	data, err := json.Marshal(report.Daemon{Host: c.member.Host, PID: daemonPID(c.daemon), Workers: []report.Worker{{Member: c.self}}})
	return &controlv1.Told{What: &controlv1.Told_Report{Report: &controlv1.PsReply{ReportJson: data}}}, err
}

// newColleague starts a worker of the daemon host/pid.
func newColleague(t *testing.T, id, host string, pid, index int) *colleague {
	t.Helper()
	seat := coordinator.Seat(host, pid, index)
	c := &colleague{member: membership.Member{ID: id, Host: host, Seat: seat, Index: index}}
	c.network = &network{self: id, daemon: coordinator.Daemon(seat), fsid: "f", ask: c.answerAsk}
	c.system = actor.NewActorSystem(actor.WithLoggerFactory(func(*actor.ActorSystem) *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }))
	listens := make(chan struct{})
	err := c.assemble(transport.Bind{Local: netip.MustParseAddr("127.0.0.1")}, func(address, fingerprint string) {
		c.member.Address, c.member.Fingerprint = address, fingerprint
		close(listens)
	}, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		c.transport.Run(ctx)
	}()
	t.Cleanup(func() {
		cancel()
		<-ended
	})
	<-listens
	return c
}

// TestTheSiteIsAsked: a daemon of two workers of which one hangs is heard by the other; one
// that hangs, one that nobody can reach, and a dead one have lines that say so, within the
// time that there is.
func TestTheSiteIsAsked(t *testing.T) {
	t.Parallel()
	a, b0, b1 := newColleague(t, "1", "north", 10, 0), newColleague(t, "2", "south", 20, 0), newColleague(t, "3", "south", 20, 1)
	hung, failing := newColleague(t, "4", "west", 30, 0), newColleague(t, "5", "east", 40, 0)
	b0.hangs, hung.hangs, failing.fails = true, true, errors.New("no report")
	away := membership.Member{ID: "6", Host: "far", Seat: coordinator.Seat("far", 50, 0), Address: "127.0.0.1:1", Fingerprint: "x"}
	dead := membership.Dead{Member: membership.Member{ID: "7", Host: "gone", Seat: coordinator.Seat("gone", 60, 0)}, Since: time.Now(), Fenced: true, Cause: "no heartbeat for 2s"}
	view := membership.View{Dead: []membership.Dead{dead}, Members: []membership.Member{away}}
	all := []*colleague{a, b0, b1, hung, failing}
	for _, c := range all {
		view.Members = append(view.Members, c.member)
	}
	// The others learn of it later than who asks: the answer has to be tried again.
	a.changed(1, view)
	time.AfterFunc(300*time.Millisecond, func() {
		for _, c := range all[1:] {
			c.changed(1, view)
		}
	})
	began := time.Now()
	r := a.report(t.Context())
	if took := time.Since(began); took > neighbourPatience+500*time.Millisecond {
		t.Errorf("it took %v", took)
	}
	want := map[string]string{
		"north, pid 10": "answers ", // its daemon says itself
		"south, pid 20": "answers 3",
		"west, pid 30":  "silent the daemon did not answer", "east, pid 40": "silent no report",
		"far, pid 50": "silent cannot reach member 6 on far at 127.0.0.1:1", "gone, pid 60": "dead no heartbeat for 2s, fenced",
	}
	for _, d := range r.Daemons {
		got := string(d.State) + " " + d.Text
		if d.Report != nil {
			got += d.Report.Workers[0].Member
		}
		parts := strings.SplitN(want[d.Name()], " ", 2)
		if want[d.Name()] == "" || !strings.HasPrefix(got, parts[0]+" ") || !strings.Contains(got, parts[1]) {
			t.Errorf("%s: %s, want %s", d.Name(), got, want[d.Name()])
		}
	}
	if len(r.Daemons) != len(want) || r.Frozen {
		t.Errorf("%+v", r)
	}

	// Who hangs does not use up the time of who would answer.
	began = time.Now()
	if d, _, err := a.reportOf(t.Context(), []string{"2", "3"}); err != nil || d.Workers[0].Member != "3" || time.Since(began) > second+time.Second {
		t.Errorf("the second worker's answer: %+v, %v, after %v", d, err, time.Since(began))
	}

	// A command goes to one worker of each other daemon, the owner where it is.
	replies, err := a.spread(t.Context(), &controlv1.CommandRequest{Target: &controlv1.Target{Image: "g"}, HereOnly: true}, "3", toAll)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, s := range replies {
		var said controlv1.CommandReply
		if err := proto.Unmarshal(s.Reply, &said); err != nil {
			t.Error(err)
		}
		got[s.Host] = s.Error
		for _, o := range said.GetOutcomes() {
			got[s.Host] += o.Text
		}
	}
	for to, want := range map[audience]string{toOwner: "south", toOthers: "east far west"} {
		replies, _ := a.spread(t.Context(), &controlv1.CommandRequest{HereOnly: true}, "3", to)
		var hosts []string
		for _, s := range replies {
			hosts = append(hosts, s.Host)
		}
		if strings.Join(hosts, " ") != want {
			t.Errorf("to %s: %v", to, hosts)
		}
	}
	if len(got) != 4 || got["south"] != "done by 3" || got["west"] == "" || got["east"] != "no report" || !strings.Contains(got["far"], "cannot reach") {
		t.Errorf("%v", got)
	}

	// Who does not hear it is not waited for as long as it may take.
	began = time.Now()
	replies, _ = a.spread(t.Context(), &controlv1.CommandRequest{TimeoutNanos: time.Minute.Nanoseconds(), HereOnly: true}, "6", toOwner)
	if took := time.Since(began); len(replies) != 1 || replies[0].Error == "" || took > time.Minute/2 {
		t.Errorf("%+v after %v", replies, took)
	}
}

// TestManyQuestionsAreBounded: those that hang use up no more than there is.
func TestManyQuestionsAreBounded(t *testing.T) {
	t.Parallel()
	a, b := newColleague(t, "1", "north", 10, 0), newColleague(t, "2", "south", 20, 0)
	b.hangs = true
	view := membership.View{Members: []membership.Member{a.member, b.member}}
	a.changed(1, view)
	b.changed(1, view)
	var all sync.WaitGroup
	refused := make(chan string, 3*maxQuestions)
	for range 3 * maxQuestions {
		all.Go(func() {
			_, err := a.spread(t.Context(), &controlv1.CommandRequest{}, "", toAll)
			replies, _ := a.spread(t.Context(), &controlv1.CommandRequest{}, "", toAll)
			for _, r := range replies {
				refused <- r.Error
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(refused)
	busy := 0
	for s := range refused {
		if s == "it has too much to answer" {
			busy++
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if busy == 0 || len(b.asked) > 5*maxQuestions {
		t.Errorf("%d were refused, %d asked", busy, len(b.asked))
	}
	if d := daemonPID("host/"); d != 0 {
		t.Errorf("no pid: %d", d)
	}
}
