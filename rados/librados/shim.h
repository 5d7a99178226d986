// The C face of shim.cc, the thin layer over librados' C++ interface. It exists
// for what the C interface (and so go-ceph) lacks: asynchronous operations with a
// snapshot context of their own, sparse_read, list_watchers, list_snaps.
//
// Memory: an operation (warden_op) belongs to librados until wardenComplete has
// been called for it. If that call returns 1 the operation is freed; if it
// returns 0 Go frees it with warden_op_free once it has taken the results.
#ifndef WARDEN_SHIM_H
#define WARDEN_SHIM_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

// A piece of read data, in memory that the operation owns.
typedef struct { const uint8_t *data; uint64_t len; } warden_seg;

// The results of a read, valid until the operation is freed: flat holds what
// encode_results in shim.cc writes, segs the data that flat refers to, in order.
typedef struct {
  const uint8_t *flat;
  uint64_t flat_len;
  const warden_seg *segs;
  uint64_t nsegs;
} warden_results;

typedef struct warden_io warden_io;
typedef struct warden_op warden_op;
typedef struct warden_watch warden_watch;

// Exported by Go. They are called from librados' threads and do not block.
extern int32_t wardenComplete(uint64_t token, int32_t result, void *op);
extern void wardenNotified(uint64_t watch, uint64_t notify_id, uint64_t cookie, uint64_t notifier, uint8_t *data, uint64_t len);
extern void wardenWatchLost(uint64_t watch, int32_t err);

// An I/O context over a rados_ioctx_t, of which it takes a reference.
warden_io *warden_io_open(void *ioctx, void *cluster);
// Drops the caller's reference; operations under way keep theirs.
void warden_io_close(warden_io *io);

// These start an operation and return 0, or a negative errno if it was not
// started. *op is valid until wardenComplete has been called (see above).
int32_t warden_write(warden_io *io, uint64_t token, const char *oid, uint64_t oid_len,
                     const uint8_t *flat, uint64_t flat_len, warden_op **op);
int32_t warden_read(warden_io *io, uint64_t token, const char *oid, uint64_t oid_len,
                    const uint8_t *flat, uint64_t flat_len, warden_op **op);
int32_t warden_notify(warden_io *io, uint64_t token, const char *oid, uint64_t oid_len,
                      const uint8_t *data, uint64_t len, uint64_t timeout_ms, warden_op **op);
int32_t warden_snap_create(warden_io *io, uint64_t token, warden_op **op);
int32_t warden_snap_remove(warden_io *io, uint64_t token, uint64_t snap, warden_op **op);

// A watch. When warden_watch_start's operation has succeeded, *w belongs to the
// caller, who ends it with warden_watch_stop; if it failed, *w is gone. After
// warden_watch_stop's operation no callback of the watch runs any more.
int32_t warden_watch_start(warden_io *io, uint64_t token, const char *oid, uint64_t oid_len,
                           uint32_t timeout_s, uint64_t watch, warden_watch **w, warden_op **op);
int32_t warden_watch_stop(warden_watch *w, uint64_t token, warden_op **op);
uint64_t warden_watch_cookie(warden_watch *w);
// Milliseconds since the watch was last known to be alive, or a negative errno.
int32_t warden_watch_check(warden_watch *w);
void warden_notify_ack(warden_io *io, const char *oid, uint64_t oid_len, uint64_t notify_id,
                       uint64_t cookie, const uint8_t *data, uint64_t len);

// Asks librados to forget an operation: it then completes with ECANCELED soon,
// unless it has completed already. The OSD may still perform it.
void warden_op_cancel(warden_op *op);
const warden_results *warden_op_results(warden_op *op);
// The id that warden_snap_create allocated.
uint64_t warden_op_snap(warden_op *op);
void warden_op_free(warden_op *op);

#ifdef __cplusplus
}
#endif
#endif
