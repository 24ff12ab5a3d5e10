// Start and end of a session.

#include <sys/mount.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "common/base/log.h"
#include "rafs/fuse/core.h"
#include "rafs/fuse/mount_point.h"

namespace davit::rafs {
namespace {

constexpr std::chrono::seconds kInitTimeout{10};
constexpr std::chrono::seconds kJoinTimeout{5};

std::size_t ThreadLimit(const FuseOptions& options) {
  return static_cast<std::size_t>(std::clamp(options.max_threads, 2, 1024));
}
std::size_t RestingThreads(const FuseOptions& options) {
  return static_cast<std::size_t>(
      std::clamp(options.threads, 1, static_cast<int>(ThreadLimit(options))));
}
// Some threads are kept from waiting for the network, whatever happens.
std::size_t MaxWaiting(const FuseOptions& options) {
  const std::size_t limit = ThreadLimit(options);
  return limit - std::min<std::size_t>(limit / 2, 4);
}

std::vector<log::Field> FieldsOf(const FuseOptions& options, const std::string& path) {
  if (!options.log_fields.empty()) return options.log_fields;
  return {{"mountpoint", path.empty() ? "(socket)" : path}};
}

class LiveSession : public FuseSession {
 public:
  LiveSession(std::shared_ptr<Core> core, std::string path)
      : core_(std::move(core)),
        workers_(core_, *core_->channel, core_->inflight,
                 {.name = core_->options.fs_name,
                  .log_fields = FieldsOf(core_->options, path),
                  .rest = RestingThreads(core_->options),
                  .max = ThreadLimit(core_->options)}),
        mount_{.path = std::move(path)} {}

  ~LiveSession() override {
    if (mounted_) End();
    core_->channel->AnswerCancelled(core_->slow.CancelAll());
    if (socket_ >= 0) ::shutdown(socket_, SHUT_RD);  // replies may still leave
    if (workers_.JoinFor(kJoinTimeout)) return;
    log::Error("FUSE threads did not end; their memory is given up",
               {{"mountpoint", mount_.path}, {"threads", workers_.thread_count()}});
  }

  Status Serve() { return workers_.Start(); }

  Status ServeMount() {
    mounted_ = true;
    DAVIT_TRY_ASSIGN(mount_, IdentifyMount(mount_.path));
    DAVIT_TRY(workers_.Start());
    if (!core_->channel->WaitUntilInitialised(kInitTimeout)) {
      return Error(Code::kDeadlineExceeded,
                   "the kernel did not start to talk over the FUSE mount " + mount_.path);
    }
    const Status raised = SetReadAhead(mount_, core_->options.read_ahead_bytes);
    if (!raised) {
      log::Info(
          "the kernel's read-ahead for this mount stays small; large sequential reads are "
          "slower",
          {{"mountpoint", mount_.path}, {"error", raised.error()}});
    }
    return {};
  }

  Status Unmount(bool lazy) override {
    if (!mounted_) {
      return Error(Code::kFailedPrecondition, "nothing is mounted by this session");
    }
    DAVIT_TRY(UnmountIdentity(mount_, lazy ? MNT_DETACH : 0));
    // After a lazy unmount the threads serve until the last open file is closed.
    if (!lazy && !workers_.JoinFor(kJoinTimeout)) {
      log::Warn("FUSE threads are slow to end after the unmount", {{"mountpoint", mount_.path}});
    }
    return {};
  }

  bool alive() const override {
    if (workers_.over()) return false;
    return !mounted_ || IsMounted(mount_);
  }

  std::vector<InflightRequest> Inflight() const override {
    std::vector<InflightRequest> out;
    const TimePoint now = std::chrono::steady_clock::now();
    core_->inflight.List(now, out);
    core_->slow.ListQueued(now, out);
    return out;
  }

  FuseStats stats() const override { return core_->inflight.Totals(); }

  std::optional<ReadFailure> LastReadFailure() const override {
    return core_->read_failures.Last([this](const ReadFailure& failure) {
      std::vector<Piece> pieces;
      const Status located =
          core_->fs->Locate(InodeId{failure.inode}, failure.offset, failure.size, pieces);
      return located.ok() && Filesystem::IsLocal(pieces);
    });
  }

  void set_socket(int fd) { socket_ = fd; }

 private:
  // Takes the mount away whatever state it is in. Each step is for what the one before left.
  void End() {
    const Status clean = UnmountIdentity(mount_, 0);
    if (clean.ok() && workers_.JoinFor(std::chrono::seconds(1))) return;
    // Busy, or detached earlier with files still open. Waiting readers get their answer, then the
    // connection ends: later reads of open files fail with ENOTCONN.
    core_->channel->AnswerCancelled(core_->slow.CancelAll());
    if (!clean) {
      log::Warn("the mount is busy and is detached; programs that use it get errors",
                {{"mountpoint", mount_.path}, {"error", clean.error()}});
    }
    const Status detached = UnmountIdentity(mount_, MNT_FORCE | MNT_DETACH);
    if (workers_.JoinFor(std::chrono::seconds(1))) return;
    const Status aborted = AbortConnection(mount_);
    if (detached.ok() && aborted.ok()) return;
    log::Error("cannot end a FUSE connection",
               {{"mountpoint", mount_.path},
                {"error", aborted.ok() ? detached.error() : aborted.error()}});
  }

  const std::shared_ptr<Core> core_;
  Workers workers_;
  MountIdentity mount_;
  bool mounted_ = false;
  int socket_ = -1;  // owned by the channel, which lives as long as core_
};

Result<std::shared_ptr<Core>> MakeCore(std::shared_ptr<const Filesystem> fs,
                                       const FuseOptions& options) {
  auto core = std::make_shared<Core>(std::move(fs), options);
  DAVIT_TRY_ASSIGN(core->channel, Channel::Create(*core, core->options.allow_other));
  return core;
}

}  // namespace

Core::Core(std::shared_ptr<const Filesystem> f, const FuseOptions& o)
    : fs(std::move(f)),
      options(o),
      nodes(fs->metadata().root()),
      buffers(o.buffers != nullptr ? o.buffers : std::make_shared<ReadBuffers>()),
      inflight(ThreadLimit(o)),
      slow(MaxWaiting(o),
           [this](SlowReads::Reads reads) { channel->AnswerCancelled(std::move(reads)); }) {}

Result<std::unique_ptr<FuseSession>> FuseSession::Start(std::shared_ptr<const Filesystem> fs,
                                                        const FuseOptions& options) {
  DAVIT_TRY_ASSIGN(const std::string path, CheckMountpoint(options.mountpoint));
  FuseOptions effective = options;
  if (effective.allow_other && ::geteuid() != 0 && !UsersMayAllowOther()) {
    log::Warn(
        "only you can see the mount: other users need the line user_allow_other in "
        "/etc/fuse.conf",
        {{"mountpoint", path}});
    effective.allow_other = false;
  }
  DAVIT_TRY_ASSIGN(auto core, MakeCore(std::move(fs), effective));
  auto device = MountDirectly(effective, path);
  if (device.ok()) {
    const Status served = core->channel->ServeDevice(*std::move(device));
    if (!served) {
      ::umount2(path.c_str(), MNT_DETACH);
      return served.error();
    }
  } else if (::geteuid() == 0) {
    return std::move(device).error();
  } else {
    DAVIT_TRY(core->channel->MountWithHelper(path));
  }
  auto session = std::make_unique<LiveSession>(std::move(core), path);
  DAVIT_TRY(session->ServeMount());
  return session;
}

Result<std::unique_ptr<FuseSession>> FuseSession::StartOnSocket(
    std::shared_ptr<const Filesystem> fs, const FuseOptions& options, UniqueFd socket) {
  DAVIT_TRY_ASSIGN(auto core, MakeCore(std::move(fs), options));
  const int fd = socket.get();
  DAVIT_TRY(core->channel->ServeSocket(std::move(socket)));
  auto session = std::make_unique<LiveSession>(std::move(core), "");
  session->set_socket(fd);
  DAVIT_TRY(session->Serve());
  return session;
}

}  // namespace davit::rafs
