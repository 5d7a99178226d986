package librados

/*
#include "shim.h"
*/
import "C"

import (
	"context"
	"syscall"
	"time"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
	"github.com/rbdwarden/rbdwarden/rados"
)

func (io *ioContext) Notify(ctx context.Context, object string, payload []byte, timeout time.Duration) (rados.NotifyReply, error) {
	reply, err := io.notify(ctx, object, payload, timeout)
	if err != nil {
		return rados.NotifyReply{}, io.fail("notify", object, err)
	}
	return reply, nil
}

func (io *ioContext) notify(ctx context.Context, object string, payload []byte, timeout time.Duration) (rados.NotifyReply, error) {
	var none rados.NotifyReply
	if object == "" {
		return none, syscall.EINVAL
	}
	p, err := io.begin(ctx)
	if err != nil {
		return none, err
	}
	p.cancellable = false // not an operation that librados can cancel; bounded by timeout
	name, nameLen := oid(object)
	data, n := flatBytes(payload)
	// The OSD's unit is the second, and 0 would be its default of 30 s.
	ms := C.uint64_t(seconds(timeout)) * 1000
	r, err := p.wait(ctx, C.warden_notify(io.h, p.token(), name, nameLen, data, n, ms, &p.op))
	if err != nil {
		return none, err
	}
	defer p.finish()
	var answer rados.ReadStep
	answer.Kind = rados.ReadData
	if err := openResults(p.op).step(&answer); err != nil {
		return none, err
	}
	// Watchers that did not answer give ETIMEDOUT with a reply that lists them; an
	// OSD that did not answer gives ETIMEDOUT and nothing.
	if r < 0 && (syscall.Errno(-r) != syscall.ETIMEDOUT || len(answer.Data) == 0) {
		return none, resultError(r)
	}
	if len(answer.Data) == 0 {
		return none, nil
	}
	return decodeNotifyReply(answer.Data)
}

// decodeNotifyReply reads what the OSD answers to a notification
// (librados.hpp, notify2): acknowledgements, then who did not answer.
func decodeNotifyReply(b []byte) (rados.NotifyReply, error) {
	var r rados.NotifyReply
	d := encoding.NewDecoder("notify reply", b)
	for range d.Count(20) {
		a := rados.NotifyAck{Watcher: rados.Watcher{ClientID: d.U64(), Cookie: d.U64()}}
		a.Reply = append([]byte(nil), d.Blob()...)
		r.Acks = append(r.Acks, a)
	}
	for range d.Count(16) {
		r.Missed = append(r.Missed, rados.Watcher{ClientID: d.U64(), Cookie: d.U64()})
	}
	return r, d.Err()
}
