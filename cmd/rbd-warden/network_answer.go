package main

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/asynkron/protoactor-go/actor"

	clusterv1 "github.com/rbdwarden/rbdwarden/proto/cluster/v1"
	controlv1 "github.com/rbdwarden/rbdwarden/proto/control/v1"
)

// receive is the receptionist: it has questions answered beside itself.
func (n *network) receive(c actor.Context) {
	q, ok := c.Message().(*clusterv1.Question)
	if !ok || c.Sender() == nil {
		return
	}
	sender, system := c.Sender(), c.ActorSystem()
	select {
	case n.busy <- struct{}{}:
	default:
		system.Root.Send(sender, &clusterv1.Answer{Error: "it has too much to answer"})
		return
	}
	go func() {
		defer func() { <-n.busy }()
		system.Root.Send(sender, n.answer(q))
	}()
}

// Bounds of an answer.
const (
	answerSlack = 200 * time.Millisecond // for its way back
	maxReport   = 256 << 20              // bytes of a daemon's report, decompressed
)

// answer has a question answered by this worker's daemon.
func (n *network) answer(q *clusterv1.Question) (a *clusterv1.Answer) {
	defer func() {
		if p := recover(); p != nil {
			a = &clusterv1.Answer{Error: fmt.Sprint("panic: ", p)}
		}
	}()
	ask := &controlv1.Ask{}
	switch what := q.GetWhat().(type) {
	case *clusterv1.Question_Report:
		ask.What = &controlv1.Ask_Report{Report: &controlv1.PsRequest{}}
	case *clusterv1.Question_Command:
		ask.What = &controlv1.Ask_Command{Command: what.Command}
	case *clusterv1.Question_Slots:
		granted, err := n.slots(q.GetSlots())
		if err != nil {
			return &clusterv1.Answer{Error: err.Error()}
		}
		return &clusterv1.Answer{What: &clusterv1.Answer_Slots{Slots: &clusterv1.SlotAnswer{Granted: granted}}}
	case *clusterv1.Question_Load:
		if l := n.loadAnswer(q.GetLoad().GetPoolId()); l != nil {
			return &clusterv1.Answer{What: &clusterv1.Answer_Load{Load: l}}
		}
		return &clusterv1.Answer{Error: "it cannot tell its loads"}
	case *clusterv1.Question_Move:
		return &clusterv1.Answer{What: &clusterv1.Answer_Move{Move: n.moveAsked(q)}}
	case *clusterv1.Question_Node:
		ask.What = &controlv1.Ask_Node{Node: what.Node}
	default:
		return &clusterv1.Answer{Error: "it does not know the question"}
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Duration(q.GetTimeoutNanos())-answerSlack)
	defer cancel()
	told, err := n.ask(ctx, ask)
	if err != nil {
		return &clusterv1.Answer{Error: err.Error()}
	}
	if told.GetCommand() != nil {
		return &clusterv1.Answer{What: &clusterv1.Answer_Command{Command: told.GetCommand()}}
	}
	if told.GetNode() != nil {
		return &clusterv1.Answer{What: &clusterv1.Answer_Node{Node: told.GetNode()}}
	}
	small, err := compress(told.GetReport().GetReportJson())
	if err != nil {
		return &clusterv1.Answer{Error: err.Error()}
	}
	return &clusterv1.Answer{What: &clusterv1.Answer_ReportGzip{ReportGzip: small}}
}

func compress(data []byte) ([]byte, error) {
	var b bytes.Buffer
	z, err := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	if err != nil {
		return nil, err
	}
	_, err = z.Write(data)
	if err = errors.Join(err, z.Close()); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func decompress(small []byte) ([]byte, error) {
	z, err := gzip.NewReader(bytes.NewReader(small))
	if err != nil {
		return nil, err
	}
	data, err := io.ReadAll(io.LimitReader(z, maxReport+1))
	if len(data) > maxReport {
		err = fmt.Errorf("a report of more than %d bytes", maxReport)
	}
	return data, err
}
