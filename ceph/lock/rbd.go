package lock

import (
	"strconv"
	"strings"
)

// How librbd uses locks (src/include/rbd_types.h, src/librbd/ManagedLock.cc,
// src/librbd/managed_lock/Utils.cc).
const (
	// RBDName is the name of the lock on an image's header, on its object map and
	// on rbd_mirror_leader (RBD_LOCK_NAME).
	RBDName = "rbd_lock"
	// RBDTag is the tag of locks that librbd takes by itself. A lock of that name
	// with another tag was set by a person ("rbd lock add").
	RBDTag = "internal"
	// rbdCookie is the first word of such a lock's cookie.
	rbdCookie = "auto"
)

// RBDCookie is the cookie of a lock whose owner watches the object under that
// handle: "auto 94213". Other clients believe that the owner lives for as long as
// the watch does.
func RBDCookie(watchHandle uint64) string {
	return rbdCookie + " " + strconv.FormatUint(watchHandle, 10)
}

// ParseRBDCookie gives the watch's handle, or false if librbd did not make the
// cookie.
func ParseRBDCookie(cookie string) (watchHandle uint64, ok bool) {
	word, number, found := strings.Cut(cookie, " ")
	if !found || word != rbdCookie {
		return 0, false
	}
	h, err := strconv.ParseUint(number, 10, 64)
	return h, err == nil
}
