#include "csi/core/image_mounts.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <utility>
#include <vector>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/thread_pool.h"

namespace davit::csi {
namespace {

using std::chrono::duration_cast;
using std::chrono::milliseconds;
using std::chrono::seconds;

// Each one is a thread that waits for the daemon.
constexpr std::size_t kMaxOperations = 256;
// A failure that nobody heard of is still news for this long.
constexpr seconds kFailureIsNews{300};
constexpr milliseconds kProgressPatience{500};

std::string Megabytes(std::uint64_t bytes) {
  return fmt::format("{:.1f} MB", static_cast<double>(bytes) / 1e6);
}

}  // namespace

// Fields are guarded by ImageMounts::mutex_, `stop` and `thread` excepted.
struct ImageMounts::Operation {
  bool release = false;  // otherwise it is a mount
  bool done = false;
  Result<daemon::api::MountInfo> result = Error(Code::kAborted, "not finished");
  TimePoint started = std::chrono::steady_clock::now();
  TimePoint finished{};
  Secret auth;
  std::stop_source stop;
  std::thread thread;
};

ImageMounts::ImageMounts(daemon::Client& daemon, std::shared_ptr<Mounter> mounter,
                         std::string directory)
    : daemon_(daemon), mounter_(std::move(mounter)), directory_(std::move(directory)) {}

ImageMounts::~ImageMounts() {
  std::vector<OperationPtr> all;
  {
    MutexLock lock(mutex_);
    stopping_ = true;
    for (auto& [id, operation] : operations_) {
      operation->stop.request_stop();
      all.push_back(operation);
    }
  }
  changed_.NotifyAll();
  for (const auto& operation : all) {
    if (operation->thread.joinable()) operation->thread.join();
  }
}

bool ImageMounts::Busy(const std::string& id) const {
  MutexLock lock(mutex_);
  const auto it = operations_.find(id);
  return it != operations_.end() && !it->second->done;
}

ImageMounts::OperationPtr ImageMounts::StartMount(const std::string& id, const std::string& volume,
                                                  const VolumeSpec& spec, const Secret& auth) {
  auto operation = std::make_shared<Operation>();
  operation->auth = auth;
  daemon::api::MountRequest request;
  request.id = id;
  request.source = spec.image;
  request.mountpoint = PathOf(id);
  request.platform = spec.platform;
  request.ready = spec.ready;
  request.fill = spec.fill;
  request.plain_http = spec.plain_http;
  request.volume = volume;
  request.registry_auth = auth;
  operations_[id] = operation;
  operation->thread = std::thread([this, operation, request, fields = log::ScopeFields()] {
    const log::Scope scope(fields);
    RunMount(operation, request);
  });
  return operation;
}

void ImageMounts::RunMount(const OperationPtr& operation,
                           const daemon::api::MountRequest& request) {
  SetThreadName("csi-mount");
  Context ctx;
  ctx.stop = operation->stop.get_token();
  Result<daemon::api::MountInfo> result = Error(Code::kInternal, "not run");
  Status prepared = PrepareMountPoint(ctx, request);
  if (prepared.ok()) {
    result = daemon_.Mount(ctx, request);
  } else {
    result = std::move(prepared).error();
  }
  MutexLock lock(mutex_);
  if (!result.ok()) {
    log::Debug("mounting an image failed",
               {{"mount", request.id}, {"image", request.source}, {"error", result.error()}});
  }
  operation->result = std::move(result);
  operation->done = true;
  operation->finished = std::chrono::steady_clock::now();
  changed_.NotifyAll();
}

Status ImageMounts::PrepareMountPoint(const Context& ctx,
                                      const daemon::api::MountRequest& request) {
  DAVIT_TRY_ASSIGN(const auto mounts, mounter_->List());
  if (FindMount(mounts, request.mountpoint) == nullptr) {
    return MakeDirectories(request.mountpoint);
  }
  // Either it is the daemon's and alive, or a daemon that died and forgot it has left it. A dead
  // one cannot be looked at, let alone mounted on.
  auto info = daemon_.Get(ctx, request.id);
  if (info.ok()) return {};
  if (info.error().code() != Code::kNotFound) return std::move(info).error();
  log::Warn("detaching a mount that its daemon has left behind", {{"path", request.mountpoint}});
  return mounter_->Detach(request.mountpoint);
}

void ImageMounts::Erase(const std::string& id, const OperationPtr& operation) {
  const auto it = operations_.find(id);
  if (it != operations_.end() && it->second == operation) operations_.erase(it);
  // The thread of a finished operation has given up the lock that is held here, so it ends at once.
  if (operation->thread.joinable()) operation->thread.join();
}

Result<daemon::api::MountInfo> ImageMounts::Take(const std::string& id,
                                                 const OperationPtr& operation) {
  Erase(id, operation);
  return operation->result;
}

Result<daemon::api::MountInfo> ImageMounts::Ensure(const Context& ctx, const std::string& id,
                                                   const std::string& volume,
                                                   const VolumeSpec& spec, const Secret& auth) {
  OperationPtr operation;
  mutex_.lock();
  while (true) {
    const auto it = operations_.find(id);
    if (it != operations_.end() && it->second->done) {
      const OperationPtr old = it->second;
      const bool news = !old->result.ok() && old->auth == auth &&
                        old->result.error().code() != Code::kCancelled &&
                        std::chrono::steady_clock::now() - old->finished < kFailureIsNews;
      auto result = Take(id, old);
      if (news) {
        mutex_.unlock();
        return result;
      }
      continue;
    }
    if (stopping_) {
      mutex_.unlock();
      return Error(Code::kUnavailable, "the driver is shutting down");
    }
    if (it == operations_.end()) {
      if (operations_.size() >= kMaxOperations) {
        mutex_.unlock();
        return Error(Code::kResourceExhausted,
                     fmt::format("{} images are being mounted already", kMaxOperations))
            .WithHint("the kubelet tries again by itself");
      }
      operation = StartMount(id, volume, spec, auth);
      break;
    }
    if (!it->second->release) {
      operation = it->second;
      break;
    }
    // It is being released: start when that is over.
    if (!changed_.Wait(mutex_, ctx)) {
      mutex_.unlock();
      return Error(Code::kAborted, "the image is still being unmounted")
          .WithHint("the kubelet tries again by itself");
    }
  }
  while (!operation->done) {
    if (changed_.Wait(mutex_, ctx)) continue;
    if (operation->done) break;
    const TimePoint started = operation->started;
    mutex_.unlock();
    return NotReady(ctx, id, spec, started);
  }
  auto result = Take(id, operation);
  mutex_.unlock();
  return result;
}

Error ImageMounts::NotReady(const Context& ctx, const std::string& id, const VolumeSpec& spec,
                            TimePoint started) {
  const bool cancelled = ctx.stop.stop_requested();
  const auto elapsed = duration_cast<seconds>(std::chrono::steady_clock::now() - started).count();
  std::string text = fmt::format("image {} is not ready after {} s", spec.image, elapsed);
  if (!cancelled) {
    auto info = daemon_.Get(Context{}.WithTimeout(kProgressPatience), id);
    if (info.ok() && info->bytes_total > 0) {
      text += fmt::format(": {} of {} are here", Megabytes(info->bytes_ready),
                          Megabytes(info->bytes_total));
    } else if (info.ok() && !info->state.empty()) {
      text += fmt::format(": {}", info->state);
    }
    if (info.ok() && !info->error.empty()) text += "; " + info->error;
  }
  return Error(cancelled ? Code::kCancelled : Code::kDeadlineExceeded, std::move(text))
      .WithHint("it goes on in the background, and the kubelet's next try joins it");
}

Status ImageMounts::UnmountNow(const Context& ctx, const std::string& id) {
  DAVIT_TRY(daemon_.Unmount(ctx, id));
  const std::string path = PathOf(id);
  // The daemon may have died before it could unmount; then its dead mount point is left.
  DAVIT_TRY(mounter_->Detach(path));
  return mounter_->RemoveTarget(path);
}

Status ImageMounts::ReleaseLocked(const Context& ctx, const std::string& id) {
  while (true) {
    const auto it = operations_.find(id);
    if (it == operations_.end()) break;
    const OperationPtr running = it->second;
    if (running->done) {
      Erase(id, running);
      break;
    }
    if (!running->release) running->stop.request_stop();
    if (!changed_.Wait(mutex_, ctx) && !running->done) {
      return Error(Code::kAborted, "another operation on mount " + id + " does not end");
    }
  }
  auto operation = std::make_shared<Operation>();
  operation->release = true;
  operations_[id] = operation;
  mutex_.unlock();
  Status status = UnmountNow(ctx, id);
  mutex_.lock();
  operation->done = true;
  Erase(id, operation);
  changed_.NotifyAll();
  return status;
}

Status ImageMounts::Release(const Context& ctx, const std::string& id) {
  MutexLock lock(mutex_);
  return ReleaseLocked(ctx, id);
}

}  // namespace davit::csi
