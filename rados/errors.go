package rados

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/rbdwarden/rbdwarden/ceph/encoding"
)

// Error is a failed operation with what it was about.
type Error struct {
	Op        string // for example "write" or "rbd.get_features"
	Cluster   string // its name; "" where that is not known. Pools of mirrored clusters have the same names
	Pool      string
	Namespace string
	Object    string
	Err       error // a syscall.Errno, a context's error or a *encoding.CorruptError
}

func (e *Error) Error() string {
	where := e.Pool
	if e.Namespace != "" {
		where += "/" + e.Namespace
	}
	if e.Object != "" {
		where += "/" + e.Object
	}
	if e.Cluster != "" {
		where += " on cluster " + e.Cluster
	}
	return fmt.Sprintf("%s %s: %v", e.Op, where, e.Err)
}

func (e *Error) Unwrap() error { return e.Err }

// MismatchError says that a compare-and-write found other bytes.
type MismatchError struct {
	Offset uint64 // first byte that differs, from the start of the comparison
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("compared bytes differ at offset %d", e.Offset)
}

// Blocklisted is the errno that a blocklisted client gets (EBLOCKLISTED,
// src/include/types.h).
const Blocklisted = syscall.ESHUTDOWN

// Class says what can be done about an error.
type Class uint8

// The classes of errors, decided once, at this boundary.
const (
	// Transient: trying again later may help (unreachable, timed out, busy).
	Transient Class = iota + 1
	// Fenced: this client may not write any more; stop at once.
	Fenced
	// Corrupt: stored bytes are damaged; a person has to look.
	Corrupt
	// Permanent: trying again will fail in the same way.
	Permanent
)

func (c Class) String() string {
	switch c {
	case Transient:
		return "transient"
	case Fenced:
		return "fenced"
	case Corrupt:
		return "corrupt"
	case Permanent:
		return "permanent"
	}
	return fmt.Sprintf("Class(%d)", uint8(c))
}

// Classify tells the class of a non-nil error.
func Classify(err error) Class {
	var corrupt *encoding.CorruptError
	switch {
	case errors.Is(err, Blocklisted):
		return Fenced
	case errors.As(err, &corrupt):
		return Corrupt
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return Transient
	}
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return Permanent
	}
	switch errno {
	case syscall.ETIMEDOUT, syscall.EAGAIN, syscall.EBUSY, syscall.EINTR, syscall.ENOTCONN,
		syscall.ECONNREFUSED, syscall.ECONNRESET, syscall.ECONNABORTED, syscall.EHOSTUNREACH,
		syscall.ENETUNREACH, syscall.EPIPE, syscall.ENOSPC, syscall.EDQUOT, syscall.ENOMEM:
		return Transient
	}
	return Permanent
}
