#include "shim.h"

#include <atomic>
#include <cerrno>
#include <cstring>
#include <list>
#include <map>
#include <memory>
#include <new>
#include <set>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <rados/librados.hpp>

using ceph::bufferlist;
using librados::AioCompletion;

struct warden_io {
  std::atomic<int> refs{1};
  librados::IoCtx io;   // writes, reads of the head
  librados::IoCtx dir;  // reads of an object's snapshot set
  librados::Rados cluster;

  void get() { refs.fetch_add(1, std::memory_order_relaxed); }
  void put() {
    if (refs.fetch_sub(1, std::memory_order_acq_rel) == 1) delete this;
  }
};

namespace {

// Kinds of steps: the numbers of rados.ReadKind and rados.WriteKind.
enum : uint8_t {
  R_ASSERT_EXISTS = 1, R_ASSERT_VERSION, R_CMP_XATTR, R_DATA, R_SPARSE, R_STAT, R_XATTRS,
  R_OMAP_LIST, R_OMAP_KEYS, R_EXEC, R_CHECKSUM, R_LIST_WATCHERS, R_LIST_SNAPS
};
enum : uint8_t {
  W_CREATE = 1, W_ASSERT_EXISTS, W_ASSERT_VERSION, W_CMP_EXT, W_CMP_XATTR, W_DATA, W_FULL, W_SAME,
  W_APPEND, W_ZERO, W_TRUNCATE, W_REMOVE, W_SET_XATTR, W_REMOVE_XATTR, W_OMAP_SET, W_OMAP_REMOVE,
  W_OMAP_CLEAR, W_EXEC, W_ALLOC_HINT, W_ROLLBACK, W_CMP_OMAP
};

// A payload's length with this bit set is followed by its address, not its bytes.
const uint64_t BY_ADDRESS = 1ULL << 63;
// CEPH_OSD_CMPXATTR_OP_EQ
const uint8_t CMP_EQ = 1;

// Reader of the flat form that flat.go writes. Both ends are in this package, so
// running over the end is a programming error and becomes EINVAL.
class flat_reader {
  const uint8_t *p, *end;
  void need(uint64_t n) const {
    if (n > uint64_t(end - p)) throw std::out_of_range("flat operation");
  }
public:
  flat_reader(const uint8_t *b, uint64_t n) : p(b), end(b + n) {}
  uint8_t u8() { need(1); return *p++; }
  uint64_t u64() {
    need(8);
    uint64_t v;
    memcpy(&v, p, 8);
    p += 8;
    return v;
  }
  std::string str() {
    uint64_t n = u64();
    need(n);
    std::string s(reinterpret_cast<const char *>(p), n);
    p += n;
    return s;
  }
  // One copy: from here on the bytes are librados' own.
  bufferlist blob() {
    uint64_t n = u64();
    const char *src;
    if (n & BY_ADDRESS) {
      n &= ~BY_ADDRESS;
      src = reinterpret_cast<const char *>(u64());
    } else {
      need(n);
      src = reinterpret_cast<const char *>(p);
      p += n;
    }
    bufferlist bl;
    if (n) bl.append(ceph::buffer::copy(src, n));
    return bl;
  }
};

// Where one read step's answer lands.
struct read_step {
  uint8_t kind = 0;
  int rval = 0;
  bufferlist data;
  uint64_t size = 0;
  timespec mtime{};
  bool more = false;
  std::map<std::string, bufferlist> pairs;
  std::map<uint64_t, uint64_t> extents;
  std::list<obj_watch_t> watchers;
  librados::snap_set_t snaps;
};

}  // namespace

struct warden_watch : public librados::WatchCtx2 {
  warden_io *io;
  std::string oid;
  uint64_t id;          // Go's name for it
  uint64_t cookie = 0;

  warden_watch(warden_io *i, std::string o, uint64_t n) : io(i), oid(std::move(o)), id(n) { io->get(); }
  ~warden_watch() override { io->put(); }
  void handle_notify(uint64_t notify_id, uint64_t c, uint64_t notifier, bufferlist &bl) override {
    wardenNotified(id, notify_id, c, notifier, reinterpret_cast<uint8_t *>(bl.length() ? bl.c_str() : nullptr), bl.length());
  }
  void handle_error(uint64_t, int err) override { wardenWatchLost(id, err); }
};

struct warden_op {
  warden_results results{};
  warden_io *io;
  uint64_t token;
  AioCompletion *c = nullptr;
  librados::IoCtx at;              // reads at a snapshot: an I/O context of their own
  std::vector<read_step> steps;
  int cmpext = 0;                  // librados wants a place for the compare's result
  uint64_t snap = 0;               // snap_create's answer
  warden_watch *starting = nullptr, *stopping = nullptr;
  std::vector<uint8_t> flat;
  std::vector<warden_seg> segs;

  warden_op(warden_io *i, uint64_t t) : io(i), token(t) { io->get(); }
  ~warden_op() {
    if (c) c->release();
    io->put();
  }
};

namespace {

class flat_writer {
  std::vector<uint8_t> &out;
public:
  explicit flat_writer(std::vector<uint8_t> &o) : out(o) {}
  void raw(const void *p, size_t n) {
    const uint8_t *b = static_cast<const uint8_t *>(p);
    out.insert(out.end(), b, b + n);
  }
  void u8(uint8_t v) { out.push_back(v); }
  void u32(uint32_t v) { raw(&v, 4); }
  void u64(uint64_t v) { raw(&v, 8); }
  void str(const char *p, size_t n) { u32(n); raw(p, n); }
  void blob(const bufferlist &bl) {
    u32(bl.length());
    for (const auto &p : bl.buffers()) raw(p.c_str(), p.length());
  }
};

void add_segs(warden_op *op, const bufferlist &bl) {
  for (const auto &p : bl.buffers())
    if (p.length()) op->segs.push_back({reinterpret_cast<const uint8_t *>(p.c_str()), p.length()});
}

// Lays the steps' answers out for Go; decode.go reads them.
void encode_results(warden_op *op) {
  flat_writer w(op->flat);
  for (auto &s : op->steps) {
    w.u32(s.rval);
    switch (s.kind) {
    case R_DATA: case R_EXEC: case R_CHECKSUM:
      w.u64(s.data.length());
      add_segs(op, s.data);
      break;
    case R_SPARSE:
      w.u32(s.extents.size());
      for (auto &e : s.extents) { w.u64(e.first); w.u64(e.second); }
      w.u64(s.data.length());
      add_segs(op, s.data);
      break;
    case R_STAT:
      w.u64(s.size);
      w.u64(s.mtime.tv_sec);
      w.u32(s.mtime.tv_nsec);
      break;
    case R_XATTRS: case R_OMAP_LIST: case R_OMAP_KEYS:
      w.u8(s.more);
      w.u32(s.pairs.size());
      for (auto &p : s.pairs) { w.str(p.first.data(), p.first.size()); w.blob(p.second); }
      break;
    case R_LIST_WATCHERS:
      w.u32(s.watchers.size());
      for (auto &o : s.watchers) {
        w.u64(o.watcher_id);
        w.u64(o.cookie);
        w.str(o.addr, strnlen(o.addr, sizeof(o.addr)));
      }
      break;
    case R_LIST_SNAPS:
      w.u64(s.snaps.seq);
      w.u32(s.snaps.clones.size());
      for (auto &cl : s.snaps.clones) {
        w.u64(cl.cloneid);
        w.u32(cl.snaps.size());
        for (auto id : cl.snaps) w.u64(id);
        w.u32(cl.overlap.size());
        for (auto &e : cl.overlap) { w.u64(e.first); w.u64(e.second); }
        w.u64(cl.size);
      }
      break;
    }
  }
}

// Gives a finished operation to Go. No exception may leave a librados callback:
// running out of memory here becomes ENOMEM.
void finish(warden_op *op, int r) {
  try {
    encode_results(op);
  } catch (const std::exception &) {
    op->flat.clear();
    op->segs.clear();
    r = -ENOMEM;
  }
  op->results = {op->flat.data(), op->flat.size(), op->segs.data(), op->segs.size()};
  if (wardenComplete(op->token, r, op)) delete op;
}

void on_complete(rados_completion_t, void *arg) {
  auto op = static_cast<warden_op *>(arg);
  int r = op->c->get_return_value();
  if (op->starting && r < 0) {
    delete op->starting;
    op->starting = nullptr;
  }
  finish(op, r);
}

void on_flushed(rados_completion_t, void *arg) {
  auto op = static_cast<warden_op *>(arg);
  delete op->stopping;
  finish(op, op->cmpext);
}

// The watch is unregistered (or that failed: it will expire). Its callbacks may
// still be queued, so flush those before the watch goes.
void on_unwatched(rados_completion_t, void *arg) {
  auto op = static_cast<warden_op *>(arg);
  op->cmpext = op->c->get_return_value();
  op->c->release();
  op->c = librados::Rados::aio_create_completion(op, on_flushed);
  int r = op->io->cluster.aio_watch_flush(op->c);
  if (r < 0) finish(op, r);  // cannot happen on a connected client; the watch is left alone
}

// Runs start with a new operation; whatever goes wrong before librados has
// accepted it, the operation is freed and the errno returned.
template <typename F>
int32_t begin(warden_io *io, uint64_t token, warden_op **out, librados::callback_t done, F start) {
  std::unique_ptr<warden_op> op;
  try {
    op.reset(new warden_op(io, token));
    op->c = librados::Rados::aio_create_completion(op.get(), done);
    *out = op.get();
    int r = start(op.get());
    if (r < 0) return r;
    op.release();
    return 0;
  } catch (const std::bad_alloc &) {
    return -ENOMEM;
  } catch (const std::exception &) {
    return -EINVAL;
  }
}

void add_write_step(warden_op *op, librados::ObjectWriteOperation &w, flat_reader &in) {
  uint8_t kind = in.u8();
  switch (kind) {
  case W_CREATE: w.create(in.u8()); break;
  case W_ASSERT_EXISTS: w.assert_exists(); break;
  case W_ASSERT_VERSION: w.assert_version(in.u64()); break;
  case W_CMP_EXT: { uint64_t off = in.u64(); w.cmpext(off, in.blob(), &op->cmpext); break; }
  case W_CMP_XATTR: { auto name = in.str(); w.cmpxattr(name.c_str(), CMP_EQ, in.blob()); break; }
  case W_DATA: { uint64_t off = in.u64(); w.write(off, in.blob()); break; }
  case W_FULL: w.write_full(in.blob()); break;
  case W_SAME: { uint64_t off = in.u64(), len = in.u64(); w.writesame(off, len, in.blob()); break; }
  case W_APPEND: w.append(in.blob()); break;
  case W_ZERO: { uint64_t off = in.u64(); w.zero(off, in.u64()); break; }
  case W_TRUNCATE: w.truncate(in.u64()); break;
  case W_REMOVE: w.remove(); break;
  case W_SET_XATTR: { auto name = in.str(); w.setxattr(name.c_str(), in.blob()); break; }
  case W_REMOVE_XATTR: w.rmxattr(in.str().c_str()); break;
  case W_OMAP_SET: {
    std::map<std::string, bufferlist> m;
    for (uint64_t n = in.u64(); n; n--) { auto k = in.str(); m[k] = in.blob(); }
    w.omap_set(m);
    break;
  }
  case W_OMAP_REMOVE: {
    std::set<std::string> keys;
    for (uint64_t n = in.u64(); n; n--) keys.insert(in.str());
    w.omap_rm_keys(keys);
    break;
  }
  case W_OMAP_CLEAR: w.omap_clear(); break;
  case W_CMP_OMAP: {
    auto key = in.str();
    w.omap_cmp({{key, {in.blob(), CMP_EQ}}}, nullptr);
    break;
  }
  case W_EXEC: {
    auto cls = in.str(), method = in.str();
    auto arg = in.blob();
    w.exec(cls.c_str(), method.c_str(), arg);
    break;
  }
  case W_ALLOC_HINT: { uint64_t size = in.u64(); w.set_alloc_hint2(size, in.u64(), 0); break; }
  case W_ROLLBACK: w.selfmanaged_snap_rollback(in.u64()); break;
  default: throw std::invalid_argument("kind of write step");
  }
}

void add_read_step(read_step &s, librados::ObjectReadOperation &r, flat_reader &in) {
  s.kind = in.u8();
  switch (s.kind) {
  case R_ASSERT_EXISTS: r.assert_exists(); break;
  case R_ASSERT_VERSION: r.assert_version(in.u64()); break;
  case R_CMP_XATTR: { auto name = in.str(); r.cmpxattr(name.c_str(), CMP_EQ, in.blob()); break; }
  case R_DATA: { uint64_t off = in.u64(); r.read(off, in.u64(), &s.data, &s.rval); break; }
  case R_SPARSE: { uint64_t off = in.u64(); r.sparse_read(off, in.u64(), &s.extents, &s.data, &s.rval); break; }
  case R_STAT: r.stat2(&s.size, &s.mtime, &s.rval); break;
  case R_XATTRS: r.getxattrs(&s.pairs, &s.rval); break;
  case R_OMAP_LIST: {
    auto after = in.str(), prefix = in.str();
    r.omap_get_vals2(after, prefix, in.u64(), &s.pairs, &s.more, &s.rval);
    break;
  }
  case R_OMAP_KEYS: {
    std::set<std::string> keys;
    for (uint64_t n = in.u64(); n; n--) keys.insert(in.str());
    r.omap_get_vals_by_keys(keys, &s.pairs, &s.rval);
    break;
  }
  case R_EXEC: {
    auto cls = in.str(), method = in.str();
    auto arg = in.blob();
    r.exec(cls.c_str(), method.c_str(), arg, &s.data, &s.rval);
    break;
  }
  case R_CHECKSUM: {
    auto type = rados_checksum_type_t(in.u8());
    auto seed = in.blob();
    uint64_t off = in.u64(), len = in.u64(), chunk = in.u64();
    r.checksum(type, seed, off, len, chunk, &s.data, &s.rval);
    break;
  }
  case R_LIST_WATCHERS: r.list_watchers(&s.watchers, &s.rval); break;
  case R_LIST_SNAPS: r.list_snaps(&s.snaps, &s.rval); break;
  default: throw std::invalid_argument("kind of read step");
  }
}

}  // namespace

extern "C" {

warden_io *warden_io_open(void *ioctx, void *cluster) {
  try {
    std::unique_ptr<warden_io> io(new warden_io);
    librados::IoCtx::from_rados_ioctx_t(ioctx, io->io);
    librados::Rados::from_rados_t(cluster, io->cluster);
    // A full pool answers ENOSPC instead of letting the operation wait.
    io->io.set_pool_full_try();
    io->dir.dup(io->io);
    io->dir.snap_set_read(librados::SNAP_DIR);
    return io.release();
  } catch (const std::exception &) {
    return nullptr;
  }
}

void warden_io_close(warden_io *io) { io->put(); }

int32_t warden_write(warden_io *io, uint64_t token, const char *oid, uint64_t oid_len,
                     const uint8_t *flat, uint64_t flat_len, warden_op **out) {
  return begin(io, token, out, on_complete, [&](warden_op *op) {
    flat_reader in(flat, flat_len);
    uint64_t seq = in.u64();
    std::vector<librados::snap_t> snaps(in.u64());
    for (auto &s : snaps) s = in.u64();
    librados::ObjectWriteOperation w;
    for (uint64_t n = in.u64(); n; n--) add_write_step(op, w, in);
    return io->io.aio_operate(std::string(oid, oid_len), op->c, &w, seq, snaps);
  });
}

int32_t warden_read(warden_io *io, uint64_t token, const char *oid, uint64_t oid_len,
                    const uint8_t *flat, uint64_t flat_len, warden_op **out) {
  return begin(io, token, out, on_complete, [&](warden_op *op) {
    flat_reader in(flat, flat_len);
    uint64_t snap = in.u64();
    librados::ObjectReadOperation r;
    op->steps.resize(in.u64());
    librados::IoCtx *where = &io->io;
    for (auto &s : op->steps) {
      add_read_step(s, r, in);
      if (s.kind == R_LIST_SNAPS) where = &io->dir;
    }
    if (snap != 0 && snap != librados::snap_t(librados::SNAP_HEAD)) {
      if (where == &io->dir) return -EINVAL;
      op->at.dup(io->io);
      op->at.snap_set_read(snap);
      where = &op->at;
    }
    return where->aio_operate(std::string(oid, oid_len), op->c, &r, nullptr);
  });
}

int32_t warden_notify(warden_io *io, uint64_t token, const char *oid, uint64_t oid_len,
                      const uint8_t *data, uint64_t len, uint64_t timeout_ms, warden_op **out) {
  return begin(io, token, out, on_complete, [&](warden_op *op) {
    bufferlist bl;
    bl.append(reinterpret_cast<const char *>(data), len);
    op->steps.resize(1);
    op->steps[0].kind = R_DATA;
    return io->io.aio_notify(std::string(oid, oid_len), op->c, bl, timeout_ms, &op->steps[0].data);
  });
}

int32_t warden_snap_create(warden_io *io, uint64_t token, warden_op **out) {
  return begin(io, token, out, on_complete, [&](warden_op *op) {
    io->io.aio_selfmanaged_snap_create(&op->snap, op->c);
    return 0;
  });
}

int32_t warden_snap_remove(warden_io *io, uint64_t token, uint64_t snap, warden_op **out) {
  return begin(io, token, out, on_complete, [&](warden_op *op) {
    io->io.aio_selfmanaged_snap_remove(snap, op->c);
    return 0;
  });
}

int32_t warden_watch_start(warden_io *io, uint64_t token, const char *oid, uint64_t oid_len,
                           uint32_t timeout_s, uint64_t watch, warden_watch **w, warden_op **out) {
  return begin(io, token, out, on_complete, [&](warden_op *op) {
    std::unique_ptr<warden_watch> ww(new warden_watch(io, std::string(oid, oid_len), watch));
    *w = ww.get();
    op->starting = ww.get();
    int r = io->io.aio_watch2(ww->oid, op->c, &ww->cookie, ww.get(), timeout_s);
    if (r >= 0) ww.release();
    return r;
  });
}

int32_t warden_watch_stop(warden_watch *w, uint64_t token, warden_op **out) {
  return begin(w->io, token, out, on_unwatched, [&](warden_op *op) {
    op->stopping = w;
    return w->io->io.aio_unwatch(w->cookie, op->c);
  });
}

uint64_t warden_watch_cookie(warden_watch *w) { return w->cookie; }

int32_t warden_watch_check(warden_watch *w) { return w->io->io.watch_check(w->cookie); }

void warden_notify_ack(warden_io *io, const char *oid, uint64_t oid_len, uint64_t notify_id,
                       uint64_t cookie, const uint8_t *data, uint64_t len) {
  try {
    bufferlist bl;
    bl.append(reinterpret_cast<const char *>(data), len);
    io->io.notify_ack(std::string(oid, oid_len), notify_id, cookie, bl);
  } catch (const std::exception &) {
    // Out of memory: the notifier waits for its timeout.
  }
}

void warden_op_cancel(warden_op *op) { op->io->io.aio_cancel(op->c); }

const warden_results *warden_op_results(warden_op *op) { return &op->results; }

uint64_t warden_op_snap(warden_op *op) { return op->snap; }

void warden_op_free(warden_op *op) { delete op; }

}  // extern "C"
