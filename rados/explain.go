package rados

import (
	"context"
	"errors"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// Explain says in an operator's words what an error of a cluster means there, and
// where to look; "" if the error says all there is to say.
func Explain(err error) string {
	var corrupt *encoding.CorruptError
	var errno syscall.Errno
	switch {
	case err == nil:
	case errors.As(err, &corrupt):
		return "what is stored there is damaged, or newer than this release knows"
	case errors.Is(err, context.DeadlineExceeded):
		return noAnswer
	case errors.As(err, &errno):
		return explanations[errno]
	}
	return ""
}

const (
	noAnswer    = "the cluster did not answer in time"
	unreachable = "the cluster cannot be reached"
	forbidden   = "the cluster refuses: check the key and the caps of the user"
	full        = "the cluster or the pool is full, or its quota is used up"
)

var explanations = map[syscall.Errno]string{
	syscall.ETIMEDOUT:    noAnswer,
	syscall.ENOTCONN:     unreachable,
	syscall.ECONNREFUSED: unreachable,
	syscall.ECONNRESET:   unreachable,
	syscall.ECONNABORTED: unreachable,
	syscall.EHOSTUNREACH: unreachable,
	syscall.ENETUNREACH:  unreachable,
	syscall.EPIPE:        unreachable,
	syscall.EPERM:        forbidden,
	syscall.EACCES:       forbidden,
	syscall.ENOSPC:       full,
	syscall.EDQUOT:       full,
	Blocklisted:          "this client is blocklisted there",
	syscall.ENOENT:       "it is not there",
	syscall.EIO:          "the OSD cannot read it: look at the cluster's health",
	syscall.EBUSY:        "somebody else holds it",
	syscall.EOPNOTSUPP:   "the OSDs do not know this operation: are they older than this release supports?",
	syscall.EBADMSG:      "what is stored there is not what belongs there",
}
