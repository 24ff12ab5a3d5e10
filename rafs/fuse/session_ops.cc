// The handlers of libfuse's low-level API: requests become calls of Filesystem, results replies.

#define FUSE_USE_VERSION 312
#include "rafs/fuse/session_ops.h"

#include <fuse_lowlevel.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <exception>

#include "rafs/fuse/core.h"

namespace davit::rafs {
namespace {

// Content never changes: names, attributes and missing names may be kept for ever.
constexpr double kForEver = 1e9;  // seconds
constexpr std::size_t kMaxName = 255;
constexpr std::size_t kMaxXattrList = 64U << 10;  // XATTR_LIST_MAX

/// One request in a handler. The reply functions of libfuse consume the request: Reply() gives it
/// out once, so that an exception afterwards does not answer a second time.
class Call {
 public:
  Call(fuse_req_t request, Operation operation, fuse_ino_t node, std::uint64_t offset = 0,
       std::uint64_t size = 0)
      : core_(*static_cast<Core*>(fuse_req_userdata(request))),
        request_(request),
        operation_(operation),
        node_(node),
        offset_(offset),
        size_(size),
        slot_(Workers::CurrentSlot()) {
    if (slot_ != nullptr) slot_->Begin(operation, inode().value, offset, size);
  }
  /// A read that was queued and now has a thread.
  Call(fuse_req_t request, const SlowRead& read)
      : core_(*static_cast<Core*>(fuse_req_userdata(request))),
        request_(request),
        operation_(Operation::kRead),
        node_(read.node),
        offset_(read.offset),
        size_(read.size),
        slot_(Workers::CurrentSlot()) {
    if (slot_ != nullptr) {
      slot_->Resume(operation_, inode().value, read.offset, read.size, read.since);
    }
  }
  ~Call() {
    if (slot_ != nullptr) slot_->End();
  }
  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  Core& core() const { return core_; }
  const Metadata& metadata() const { return core_.fs->metadata(); }
  InodeId inode() const { return core_.nodes.ToInode(node_); }
  fuse_req_t request() const { return request_; }
  bool answered() const { return answered_; }
  fuse_req_t Reply() {
    answered_ = true;
    return request_;
  }
  /// Errors that are answers ("no such attribute").
  void ReplyErrno(int err) { fuse_reply_err(Reply(), err); }
  /// Errors that are failures when they mean EIO: counted and logged.
  void Fail(const Error& error, int err) {
    if (err == EIO) {
      if (slot_ != nullptr) slot_->CountError();
      core_.errors.Report(OperationName(operation_), inode().value, offset_, size_, error);
      if (operation_ == Operation::kRead && error.code() != Code::kCancelled) {
        core_.read_failures.Add({.error = error,
                                 .at = std::chrono::system_clock::now(),
                                 .inode = inode().value,
                                 .offset = offset_,
                                 .size = size_});
      }
    }
    ReplyErrno(err);
  }
  void Fail(const Error& error) { Fail(error, MetadataErrno(error)); }
  void CountWaitedRead() {
    if (slot_ != nullptr) slot_->CountWaitedRead();
  }
  void CountReadBytes(std::uint64_t bytes) {
    if (slot_ != nullptr) slot_->CountReadBytes(bytes);
  }

 private:
  Core& core_;
  const fuse_req_t request_;
  const Operation operation_;
  const fuse_ino_t node_;
  const std::uint64_t offset_, size_;
  InflightSlot* const slot_;
  bool answered_ = false;
};

/// Runs a handler; nothing that it throws reaches libfuse's C frames.
template <class Handler>
void Guard(Call& call, const Handler& handler) noexcept {
  try {
    handler();
  } catch (const std::exception& e) {
    if (!call.answered()) call.Fail(Error(Code::kInternal, e.what()), EIO);
  } catch (...) {
    if (!call.answered()) call.Fail(Error(Code::kInternal, "an unknown exception"), EIO);
  }
}

struct stat ToStat(const Core& core, const Attributes& a) {
  struct stat st{};
  st.st_ino = a.id.value;
  st.st_mode = a.mode;
  st.st_nlink = a.nlink;
  st.st_uid = a.uid;
  st.st_gid = a.gid;
  if (!core.fs->metadata().info().explicit_uid_gid) {
    // The image does not say whose its files are: they are the mounter's.
    st.st_uid = ::geteuid();
    st.st_gid = ::getegid();
  }
  st.st_rdev = a.rdev;
  st.st_size = static_cast<off_t>(a.size);
  st.st_blksize = 4096;
  st.st_blocks = static_cast<blkcnt_t>(DivUp(a.size, 512));
  st.st_mtim = {.tv_sec = a.mtime, .tv_nsec = static_cast<long>(a.mtime_nsec)};
  st.st_atim = st.st_mtim;
  st.st_ctim = st.st_mtim;
  return st;
}

fuse_entry_param ToEntry(const Core& core, const Attributes& attributes) {
  fuse_entry_param entry{};
  entry.ino = core.nodes.ToNode(attributes.id);
  entry.attr = ToStat(core, attributes);
  entry.attr_timeout = kForEver;
  entry.entry_timeout = kForEver;
  return entry;
}

// ---- names and attributes ----

void OnLookup(fuse_req_t req, fuse_ino_t parent, const char* name) {
  Call call(req, Operation::kLookup, parent);
  Guard(call, [&] {
    const std::string_view text(name);
    if (text.size() > kMaxName) return call.ReplyErrno(ENAMETOOLONG);
    const auto found = call.metadata().Lookup(call.inode(), text);
    if (!found && found.error().code() == Code::kNotFound) {
      fuse_entry_param missing{};  // node 0: the kernel may remember that there is none
      missing.entry_timeout = kForEver;
      fuse_reply_entry(call.Reply(), &missing);
      return;
    }
    if (!found) return call.Fail(found.error());
    const auto attributes = call.metadata().Stat(*found);
    if (!attributes) return call.Fail(attributes.error(), EIO);
    const fuse_entry_param entry = ToEntry(call.core(), *attributes);
    fuse_reply_entry(call.Reply(), &entry);
  });
}

void OnGetattr(fuse_req_t req, fuse_ino_t node, fuse_file_info*) {
  Call call(req, Operation::kGetattr, node);
  Guard(call, [&] {
    const auto attributes = call.metadata().Stat(call.inode());
    if (!attributes) return call.Fail(attributes.error());
    const struct stat st = ToStat(call.core(), *attributes);
    fuse_reply_attr(call.Reply(), &st, kForEver);
  });
}

void OnReadlink(fuse_req_t req, fuse_ino_t node) {
  Call call(req, Operation::kReadlink, node);
  Guard(call, [&] {
    const auto target = call.metadata().ReadLink(call.inode());
    if (!target) return call.Fail(target.error());
    fuse_reply_readlink(call.Reply(), target->c_str());
  });
}

void OnStatfs(fuse_req_t req, fuse_ino_t node) {
  Call call(req, Operation::kStatfs, node);
  Guard(call, [&] {
    std::uint64_t bytes = 0;
    for (const BlobRecord& blob : call.metadata().blobs()) bytes += blob.ci.uncompressed_size;
    struct statvfs st{};
    st.f_bsize = st.f_frsize = 4096;
    st.f_blocks = DivUp(bytes, 4096);  // a full disk: nothing can be written
    st.f_files = call.metadata().info().inodes;
    st.f_namemax = kMaxName;
    st.f_flag = ST_RDONLY;
    fuse_reply_statfs(call.Reply(), &st);
  });
}

// ---- opening: the kernel is told once that it need not ask ----

void OnOpen(fuse_req_t req, fuse_ino_t node, fuse_file_info* file) {
  Call call(req, Operation::kOpen, node);
  Guard(call, [&] {
    // ENOSYS means: no open, flush and release messages any more, and pages are kept over opens.
    if ((call.core().capabilities & FUSE_CAP_NO_OPEN_SUPPORT) != 0) return call.ReplyErrno(ENOSYS);
    file->keep_cache = 1;
    file->noflush = 1;
    fuse_reply_open(call.Reply(), file);
  });
}

void OnOpendir(fuse_req_t req, fuse_ino_t node, fuse_file_info* file) {
  Call call(req, Operation::kOpen, node);
  Guard(call, [&] {
    // As above; the kernel also keeps the listing then.
    if ((call.core().capabilities & FUSE_CAP_NO_OPENDIR_SUPPORT) != 0) {
      return call.ReplyErrno(ENOSYS);
    }
    file->keep_cache = 1;
    file->cache_readdir = 1;
    fuse_reply_open(call.Reply(), file);
  });
}

// ---- directories ----

/// Appends entries until the kernel's buffer is full.
class Listing {
 public:
  Listing(Call& call, MutableBytes out, bool plus) : call_(call), out_(out), plus_(plus) {}
  std::size_t used() const { return used_; }

  /// False when the entry does not fit.
  bool Add(const DirEntry& entry, std::uint64_t next) {
    if (entry.name.size() > kMaxName) return true;  // not to be reached by any name: left out
    std::memcpy(name_, entry.name.data(), entry.name.size());
    name_[entry.name.size()] = '\0';
    char* const at = reinterpret_cast<char*>(out_.data()) + used_;
    const std::size_t room = out_.size() - used_;
    const fuse_entry_param param = Describe(entry);
    const std::size_t needed = plus_ ? fuse_add_direntry_plus(call_.request(), at, room, name_,
                                                              &param, static_cast<off_t>(next))
                                     : fuse_add_direntry(call_.request(), at, room, name_,
                                                         &param.attr, static_cast<off_t>(next));
    if (needed > room) return false;
    used_ += needed;
    return true;
  }

 private:
  fuse_entry_param Describe(const DirEntry& entry) const {
    const bool dots = entry.name == "." || entry.name == "..";
    if (plus_ && !dots) {
      // A damaged inode must not hide its neighbours: it is listed without attributes, and the
      // error comes when somebody looks at it.
      const auto attributes = call_.metadata().Stat(entry.id);
      if (attributes) return ToEntry(call_.core(), *attributes);
    }
    fuse_entry_param param{};
    param.attr.st_ino = entry.id.value;
    param.attr.st_mode = entry.type;
    return param;
  }

  Call& call_;
  const MutableBytes out_;
  const bool plus_;
  std::size_t used_ = 0;
  char name_[kMaxName + 1];
};

void ListDirectory(fuse_req_t req, fuse_ino_t node, std::size_t size, off_t offset, bool plus) {
  Call call(req, Operation::kReaddir, node, static_cast<std::uint64_t>(offset), size);
  Guard(call, [&] {
    size = std::min<std::size_t>(size, ReadBuffers::kLarge);
    const auto buffer = call.core().buffers->Take(size);
    if (!buffer) return call.Fail(buffer.error(), ENOMEM);
    Listing listing(call, buffer->bytes().first(size), plus);
    const Status listed = call.metadata().ListDir(
        call.inode(), static_cast<std::uint64_t>(offset),
        [&listing](const DirEntry& entry, std::uint64_t next) { return listing.Add(entry, next); });
    // What was readable before the damage is delivered; the next call meets the error first.
    if (!listed && listing.used() == 0) return call.Fail(listed.error());
    fuse_reply_buf(call.Reply(), reinterpret_cast<const char*>(buffer->bytes().data()),
                   listing.used());
  });
}

void OnReaddir(fuse_req_t req, fuse_ino_t node, std::size_t size, off_t offset, fuse_file_info*) {
  ListDirectory(req, node, size, offset, false);
}

void OnReaddirplus(fuse_req_t req, fuse_ino_t node, std::size_t size, off_t offset,
                   fuse_file_info*) {
  ListDirectory(req, node, size, offset, true);
}

// ---- extended attributes: the kernel caches none, so every call comes here ----

void ReplyXattr(Call& call, std::string_view value, std::size_t size) {
  if (size == 0) {
    fuse_reply_xattr(call.Reply(), value.size());
  } else if (size < value.size()) {
    call.ReplyErrno(ERANGE);
  } else {
    fuse_reply_buf(call.Reply(), value.data(), value.size());
  }
}

void OnGetxattr(fuse_req_t req, fuse_ino_t node, const char* name, std::size_t size) {
  Call call(req, Operation::kXattr, node);
  Guard(call, [&] {
    // Once for all: the kernel does not ask again.
    if (!call.metadata().info().has_xattrs) return call.ReplyErrno(ENOSYS);
    const auto value = call.metadata().GetXattr(call.inode(), name);
    if (value) return ReplyXattr(call, *value, size);
    if (value.error().code() == Code::kNotFound) return call.ReplyErrno(ENODATA);
    call.Fail(value.error());
  });
}

void OnListxattr(fuse_req_t req, fuse_ino_t node, std::size_t size) {
  Call call(req, Operation::kXattr, node);
  Guard(call, [&] {
    if (!call.metadata().info().has_xattrs) return call.ReplyErrno(ENOSYS);
    std::string names;
    const Status listed =
        call.metadata().ListXattrs(call.inode(), [&names](std::string_view name, Bytes) {
          if (names.size() <= kMaxXattrList) names.append(name).push_back('\0');
        });
    if (!listed) return call.Fail(listed.error());
    if (names.size() > kMaxXattrList) return call.ReplyErrno(E2BIG);
    ReplyXattr(call, names, size);
  });
}

// ---- content ----

std::uint64_t TotalLength(std::span<const Piece> pieces) {
  std::uint64_t total = 0;
  for (const Piece& piece : pieces) total += piece.length;
  return total;
}

void ReplyContent(Call& call, const Context& ctx, std::span<const Piece> pieces,
                  bool killed = false) {
  const std::uint64_t total = TotalLength(pieces);
  if (total == 0) {
    fuse_reply_buf(call.Reply(), nullptr, 0);
    return;
  }
  const auto buffer = call.core().buffers->Take(total);
  if (!buffer) return call.Fail(buffer.error(), ReadErrno(buffer.error(), false));
  const auto copied = Filesystem::Copy(ctx, pieces, buffer->bytes());
  if (!copied) return call.Fail(copied.error(), ReadErrno(copied.error(), killed));
  call.CountReadBytes(*copied);
  fuse_reply_buf(call.Reply(), reinterpret_cast<const char*>(buffer->bytes().data()), *copied);
}

void OnInterrupt(fuse_req_t req, void* data) {
  // Called in C frames with the request's lock held: no reply from here.
  static_cast<Core*>(fuse_req_userdata(req))->slow.Signal(static_cast<SlowRead*>(data));
}

/// What could not be read of these blobs before can be had again.
void OnFetched(Core& core, const Blobs& blobs) {
  core.read_failures.OnFetched([&](const ReadFailure& failure) {
    std::vector<Piece> pieces;
    const Status located =
        core.fs->Locate(InodeId{failure.inode}, failure.offset, failure.size, pieces);
    return located.ok() && LieInAny(blobs, pieces);
  });
}

/// Waits without a buffer, then copies and replies.
void WaitAndReply(Call& call, SlowRead& read) {
  Context ctx;
  ctx.stop = read.stop.get_token();
  const auto timeout = call.core().options.read_timeout;
  if (timeout.count() > 0) ctx.deadline = read.since + timeout;
  std::vector<Piece> pieces;
  Status done = call.core().fs->Locate(call.inode(), read.offset, read.size, pieces);
  const Blobs blobs = BlobsToFetchFrom(pieces);
  if (done.ok()) done = Filesystem::Ensure(ctx, pieces);
  fuse_req_interrupt_func(call.request(), nullptr, nullptr);  // no Signal(read) after this
  const bool killed = read.killed;
  call.CountWaitedRead();
  if (!done) return call.Fail(done.error(), ReadErrno(done.error(), killed));
  OnFetched(call.core(), blobs);
  ReplyContent(call, ctx, pieces, killed);
}

/// Answers a slow read, then the queued ones that it made room for.
void ServeSlowReads(Call& first, std::unique_ptr<SlowRead> read) {
  Core& core = first.core();
  Guard(first, [&] { WaitAndReply(first, *read); });
  while ((read = core.slow.Finish(read.get())) != nullptr) {
    Call call(static_cast<fuse_req_t>(read->request), *read);
    Guard(call, [&] { WaitAndReply(call, *read); });
  }
}

void OnRead(fuse_req_t req, fuse_ino_t node, std::size_t size, off_t offset, fuse_file_info*) {
  Call call(req, Operation::kRead, node, static_cast<std::uint64_t>(offset), size);
  Guard(call, [&] {
    std::vector<Piece> pieces;
    const Status located =
        call.core().fs->Locate(call.inode(), static_cast<std::uint64_t>(offset), size, pieces);
    if (!located) return call.Fail(located.error(), ReadErrno(located.error(), false));
    if (Filesystem::IsLocal(pieces)) return ReplyContent(call, Context(), pieces);
    auto read = std::make_unique<SlowRead>();
    read->request = req;
    read->node = node;
    read->offset = static_cast<std::uint64_t>(offset);
    read->size = size;
    read->reader = fuse_req_ctx(req)->pid;
    read->since = std::chrono::steady_clock::now();
    fuse_req_interrupt_func(req, &OnInterrupt, read.get());
    // From here on whoever takes it from the queue answers.
    read = call.core().slow.Begin(std::move(read));
    if (read == nullptr) {
      call.Reply();
      return;
    }
    ServeSlowReads(call, std::move(read));
  });
}

// ---- the connection ----

/// What the kernel can do is taken; what cannot help a read-only image is left off.
void OnInit(void* userdata, fuse_conn_info* conn) {
  Core& core = *static_cast<Core*>(userdata);
  core.capabilities = conn->capable;
  // READDIRPLUS always, not "auto": attributes that come with a listing are never asked for again.
  // No ASYNC_DIO: the kernel would wait for such reads in a way that no signal can end.
  unsigned wanted = FUSE_CAP_ASYNC_READ | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
                    FUSE_CAP_CACHE_SYMLINKS | FUSE_CAP_EXPORT_SUPPORT |
                    FUSE_CAP_EXPLICIT_INVAL_DATA;
  // The kernel then enforces ACLs and caches them with the inode. It implies default_permissions.
  if (core.fs->metadata().info().has_xattrs && core.options.default_permissions) {
    wanted |= FUSE_CAP_POSIX_ACL;
  }
  conn->want = wanted & conn->capable;
  conn->max_read = kMaxRead;
  conn->max_readahead = core.options.read_ahead_bytes;
  // Read-ahead requests that wait for the network count: they must not keep others back.
  conn->max_background = 512;
  conn->congestion_threshold = 384;
}

fuse_lowlevel_ops MakeOps() {
  fuse_lowlevel_ops ops{};
  ops.init = OnInit;
  ops.lookup = OnLookup;
  ops.getattr = OnGetattr;
  ops.readlink = OnReadlink;
  ops.open = OnOpen;
  ops.read = OnRead;
  ops.opendir = OnOpendir;
  ops.readdir = OnReaddir;
  ops.readdirplus = OnReaddirplus;
  ops.statfs = OnStatfs;
  ops.getxattr = OnGetxattr;
  ops.listxattr = OnListxattr;
  // No forget: node ids are the image's, there is nothing to count. No access, lseek, ...: libfuse
  // answers ENOSYS and the kernel does them itself from then on.
  return ops;
}

}  // namespace

const fuse_lowlevel_ops& SessionOps() {
  static const fuse_lowlevel_ops kOps = MakeOps();
  return kOps;
}

// By value: they end here.
// NOLINTNEXTLINE(performance-unnecessary-value-param)
void AnswerCancelledReads(std::vector<std::unique_ptr<SlowRead>> reads) {
  for (const auto& read : reads) {
    auto* const req = static_cast<fuse_req_t>(read->request);
    fuse_req_interrupt_func(req, nullptr, nullptr);
    fuse_reply_err(req, read->killed ? EINTR : EIO);
  }
}

}  // namespace davit::rafs
