package rados

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

func TestErrorsReadWell(t *testing.T) {
	for _, c := range []struct {
		err  error
		text string
		hint string // part of the explanation; "" for none at all
	}{
		{
			&Error{Op: "read", Cluster: "north", Pool: "rbd", Namespace: "ns", Object: "rbd_header.1", Err: syscall.ETIMEDOUT},
			"read rbd/ns/rbd_header.1 on cluster north: connection timed out", "did not answer",
		},
		{&Error{Op: "write", Pool: "rbd", Err: Blocklisted}, "write rbd: cannot send after transport endpoint shutdown", "blocklisted"},
		{fmt.Errorf("look: %w", context.DeadlineExceeded), "look: context deadline exceeded", "did not answer"},
		{&Error{Op: "read", Pool: "p", Object: "o", Err: &encoding.CorruptError{What: "tag", Reason: "short"}}, "read p/o: ", "damaged"},
		{syscall.EACCES, "permission denied", "caps"},
		{errors.New("no errno"), "no errno", ""},
		{nil, "", ""},
	} {
		if c.err != nil && !strings.HasPrefix(c.err.Error(), c.text) {
			t.Errorf("%q, want %q", c.err, c.text)
		}
		if hint := Explain(c.err); (hint == "") != (c.hint == "") || !strings.Contains(hint, c.hint) {
			t.Errorf("%v means %q, want %q", c.err, hint, c.hint)
		}
	}
}
