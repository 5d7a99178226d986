package librados

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/rbdwarden/rbdwarden/rados"
)

// maxErrno is MAX_ERRNO of src/include/err.h: a compare that found a difference
// answers -(maxErrno + offset).
const maxErrno = 4095

func resultError(r int32) error {
	if r <= -maxErrno {
		return &rados.MismatchError{Offset: uint64(-int64(r)) - maxErrno}
	}
	return syscall.Errno(-r)
}

// fromGoCeph gives go-ceph's errors as an errno.
func fromGoCeph(err error) error {
	if err == nil {
		return nil
	}
	var coded interface{ ErrorCode() int }
	if errors.As(err, &coded) {
		code := coded.ErrorCode()
		if code < 0 {
			code = -code
		}
		return syscall.Errno(code)
	}
	return err
}

func (io *ioContext) fail(op, object string, err error) error {
	return &rados.Error{Op: op, Cluster: io.cluster.name, Pool: io.pool.Name, Namespace: io.namespace, Object: object, Err: err}
}

// writeLabel names an operation in errors: its first class call, if it has one.
func writeLabel(op *rados.WriteOp) string {
	for i := range op.Steps {
		if s := &op.Steps[i]; s.Kind == rados.WriteExec {
			return s.Call.Class + "." + s.Call.Method
		}
	}
	return "write"
}

func readLabel(op *rados.ReadOp) string {
	for _, s := range op.Steps {
		if s.Kind == rados.ReadExec {
			return s.Call.Class + "." + s.Call.Method
		}
	}
	return "read"
}

// dictionary encodes metadata as librados takes it: key, NUL, value, NUL and so on,
// and a NUL (librados.h, rados_service_register).
func dictionary(m map[string]string) ([]byte, error) {
	var b []byte
	for _, k := range slices.Sorted(maps.Keys(m)) {
		if k == "" || strings.ContainsRune(k, 0) || strings.ContainsRune(m[k], 0) {
			return nil, fmt.Errorf("metadata %q: %w", k, syscall.EINVAL)
		}
		b = append(append(append(append(b, k...), 0), m[k]...), 0)
	}
	return append(b, 0), nil
}
