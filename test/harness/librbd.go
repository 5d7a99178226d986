package harness

// #cgo LDFLAGS: -lrbd -lrados
// #include <stdlib.h>
// #include <rbd/librbd.h>
import "C"

import (
	"fmt"
	"syscall"
	"unsafe"

	"github.com/ceph/go-ceph/rados"
)

// disk is an image that librbd has open for writing. go-ceph's own type lacks compare-and-write.
type disk struct {
	image C.rbd_image_t
	// wrote, if not nil, hears of each change of a range.
	wrote func(how string, at, size int)
}

func (d *disk) note(how string, at, size int) {
	if d.wrote != nil {
		d.wrote(how, at, size)
	}
}

// rbdError is a librbd result below zero: an operation and its error number.
func rbdError(operation string, result C.int) error {
	if result >= 0 {
		return nil
	}
	return fmt.Errorf("%s: %w", operation, syscall.Errno(-result))
}

func openDisk(ioctx *rados.IOContext, name string) (*disk, error) {
	d := &disk{}
	text := C.CString(name)
	defer C.free(unsafe.Pointer(text))
	return d, rbdError("open "+name, C.rbd_open(C.rados_ioctx_t(ioctx.Pointer()), text, &d.image, nil))
}

func (d *disk) close() error { return rbdError("close", C.rbd_close(d.image)) }

func (d *disk) flush() error { return rbdError("flush", C.rbd_flush(d.image)) }

func (d *disk) resize(size uint64) error {
	return rbdError("resize", C.rbd_resize(d.image, C.uint64_t(size)))
}

func (d *disk) size() (uint64, error) {
	var size C.uint64_t
	err := rbdError("get size", C.rbd_get_size(d.image, &size))
	return uint64(size), err
}

func (d *disk) read(at int, into []byte) error {
	n := C.rbd_read(d.image, C.uint64_t(at), C.size_t(len(into)), chars(into))
	return rbdError("read", C.int(n))
}

func (d *disk) write(at int, data []byte) error {
	d.note("write", at, len(data))
	return rbdError("write", C.int(C.rbd_write(d.image, C.uint64_t(at), C.size_t(len(data)), chars(data))))
}

func (d *disk) discard(at, size int) error {
	d.note("discard", at, size)
	return rbdError("discard", C.rbd_discard(d.image, C.uint64_t(at), C.uint64_t(size)))
}

// writeSame repeats the data over size bytes.
func (d *disk) writeSame(at, size int, data []byte) error {
	d.note("writesame", at, size)
	n := C.rbd_writesame(d.image, C.uint64_t(at), C.size_t(size), chars(data), C.size_t(len(data)), 0)
	return rbdError("writesame", C.int(n))
}

// compareAndWrite answers EILSEQ where the image does not hold what is expected.
func (d *disk) compareAndWrite(at int, expected, data []byte) error {
	d.note("compare-and-write", at, len(data))
	var mismatch C.uint64_t
	n := C.rbd_compare_and_write(d.image, C.uint64_t(at), C.size_t(len(data)), chars(expected), chars(data), &mismatch, 0)
	return rbdError("compare_and_write", C.int(n))
}

// place is where in the image something is written.
type place struct{ at, size int }

// writeAtOnce starts a write at each place, of the bytes that contents holds there, and waits until all have ended. What
// overlaps ends in any order.
func (d *disk) writeAtOnce(places []place, contents []byte) error {
	var first error
	keep := func(err error) {
		if first == nil {
			first = err
		}
	}
	buffers := make([]unsafe.Pointer, len(places))
	completions := make([]C.rbd_completion_t, 0, len(places))
	for i, p := range places {
		buffers[i] = C.CBytes(contents[p.at : p.at+p.size]) // librbd keeps it beyond the call, which Go's memory must not be
		defer C.free(buffers[i])
		var c C.rbd_completion_t
		if err := rbdError("completion", C.rbd_aio_create_completion(nil, nil, &c)); err != nil {
			keep(err)
			break
		}
		if err := rbdError("aio_write", C.rbd_aio_write(d.image, C.uint64_t(p.at), C.size_t(p.size), (*C.char)(buffers[i]), c)); err != nil {
			keep(err)
			C.rbd_aio_release(c)
			break
		}
		completions = append(completions, c)
	}
	for _, c := range completions {
		keep(rbdError("aio_write", C.rbd_aio_wait_for_complete(c)))
		keep(rbdError("aio_write", C.int(C.rbd_aio_get_return_value(c))))
		C.rbd_aio_release(c)
	}
	return first
}

func chars(b []byte) *C.char { return (*C.char)(unsafe.Pointer(unsafe.SliceData(b))) }
