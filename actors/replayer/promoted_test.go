package replayer

import (
	"errors"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/rbdwarden/rbdwarden/actors/replayer/core"
	wire "github.com/rbdwarden/rbdwarden/ceph/journal"
	"github.com/rbdwarden/rbdwarden/rados"
	"github.com/rbdwarden/rbdwarden/rados/mem"
)

// A copy is promoted by force, and nobody has heard of it, when the primary begins a new tag: that must not become the
// newest one here, or the promotion would be undone. The promotion comes before the tag is asked for, or right before it is made.
func TestATagDoesNotUndoAPromotion(t *testing.T) {
	for name, method := range map[string]string{"before": "get_next_tag_tid", "amid": "tag_create"} {
		t.Run(name, func(t *testing.T) {
			var promote atomic.Pointer[func()]
			io := localCloneAmid(t, mem.FaultFunc(func(op mem.Op) mem.Verdict {
				if calls(op, method) {
					if fn := promote.Swap(nil); fn != nil {
						(*fn)()
					}
				}
				return mem.Verdict{}
			}))
			told := make(chan core.Msg, 10)
			p := openedBy(t, io, "child", func(m core.Msg) { told <- m })
			header, class := p.local.journal.HeaderObject(), p.local.role().tagClass
			fn := func() {
				tid, err := rados.Ask(t.Context(), io, header, wire.GetNextTagTID())
				if err == nil {
					err = rados.Tell(t.Context(), io, header, wire.TagCreate(tid, class, wire.Marshal(wire.TagData{MirrorUUID: wire.LocalMirrorUUID})))
				}
				if err != nil {
					t.Error(err)
				}
			}
			promote.Store(&fn)
			if _, err := p.allocateTag(t.Context(), wire.TagData{MirrorUUID: "remote-uuid"}); !errors.Is(err, errPromoted) {
				t.Errorf("the tag: %v", err)
			}
			if r, err := roleOf(t.Context(), io, "child"); err != nil || r.promotion() != core.Primary {
				t.Errorf("the newest tag is %+v, %v", r, err)
			}
			if _, err := p.local.enter(t.Context()); !errors.Is(err, errPromoted) {
				t.Errorf("the gate is open: %v", err)
			}
			select {
			case m := <-told:
				if m != core.Msg(core.LocalJournalChanged{Promotion: core.Primary}) {
					t.Errorf("told %+v", m)
				}
			default:
				t.Error("the machine was not told")
			}
		})
	}
}

// calls tells whether an operation calls a method of a class.
func calls(op mem.Op, method string) bool {
	return op.Write != nil && slices.ContainsFunc(op.Write.Steps, func(s rados.WriteStep) bool { return s.Call.Method == method }) ||
		op.Read != nil && slices.ContainsFunc(op.Read.Steps, func(s *rados.ReadStep) bool { return s.Call.Method == method })
}
