// Package librados implements the port of package rados on real clusters.
//
// Connecting, options, pools and monitor commands go through go-ceph. Object
// operations go through shim.cc, a thin layer over librados' C++ interface, because
// its C interface (and so go-ceph) lacks a snapshot context per operation,
// sparse_read, list_watchers and list_snaps.
//
// An object operation is one cgo call that starts it; librados' callback wakes the
// goroutine that waits. So no OS thread is held while a cluster is slow, and a call
// returns when its context ends: the operation is then cancelled in librados (the
// OSD may still perform it), and its buffers, which are C++'s own copies, live on
// until librados is done with them.
//
// What librados has no asynchronous form for (connecting, opening pools, monitor
// commands, waiting for a map, listing) runs in goroutines that hold a thread,
// at most blockingCalls of them per connection, each bounded by the timeouts that
// Connect always sets.
package librados

/*
#cgo CXXFLAGS: -std=c++17 -O2 -Wall
#cgo LDFLAGS: -lrados
#include "shim.h"
*/
import "C"
