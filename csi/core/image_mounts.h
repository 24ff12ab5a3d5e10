#pragma once
// The daemon's mounts behind the volumes of this node. Mounting may take longer than a caller
// waits, so it runs on its own thread and the caller's next try joins it.

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <thread>

#include "common/base/sync.h"
#include "csi/core/mounter.h"
#include "csi/core/volume_spec.h"
#include "daemon/client/client.h"

namespace davit::csi {

/// Thread-safe. One thread per mount that is being made, none at rest.
class ImageMounts {
 public:
  /// Mount points are directories below `directory`. `daemon` must outlive it.
  ImageMounts(daemon::Client& daemon, std::shared_ptr<Mounter> mounter, std::string directory);
  /// Stops what runs and waits for it.
  ~ImageMounts();
  ImageMounts(const ImageMounts&) = delete;
  ImageMounts& operator=(const ImageMounts&) = delete;

  /// The mount `id` of `spec`, made if necessary. When `ctx` ends first, kDeadlineExceeded or
  /// kCancelled with the progress; the work goes on. A failure that nobody waited for is given to
  /// the next caller that comes with the same secret.
  Result<daemon::api::MountInfo> Ensure(const Context& ctx, const std::string& id,
                                        const std::string& volume, const VolumeSpec& spec,
                                        const Secret& auth);

  /// Stops the mounting of `id`, unmounts it, removes its directory. A missing one is success.
  Status Release(const Context& ctx, const std::string& id);

  /// Whether a thread or a caller works on `id` now.
  bool Busy(const std::string& id) const;
  std::string PathOf(const std::string& id) const { return directory_ + "/" + id; }

 private:
  struct Operation;
  using OperationPtr = std::shared_ptr<Operation>;

  OperationPtr StartMount(const std::string& id, const std::string& volume, const VolumeSpec& spec,
                          const Secret& auth) DAVIT_REQUIRES(mutex_);
  void RunMount(const OperationPtr& operation, const daemon::api::MountRequest& request);
  Status PrepareMountPoint(const Context& ctx, const daemon::api::MountRequest& request);
  Result<daemon::api::MountInfo> Take(const std::string& id, const OperationPtr& operation)
      DAVIT_REQUIRES(mutex_);
  void Erase(const std::string& id, const OperationPtr& operation) DAVIT_REQUIRES(mutex_);
  Error NotReady(const Context& ctx, const std::string& id, const VolumeSpec& spec,
                 TimePoint started);
  Status ReleaseLocked(const Context& ctx, const std::string& id) DAVIT_REQUIRES(mutex_);
  Status UnmountNow(const Context& ctx, const std::string& id);

  daemon::Client& daemon_;
  const std::shared_ptr<Mounter> mounter_;
  const std::string directory_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::map<std::string, OperationPtr> operations_ DAVIT_GUARDED_BY(mutex_);
  bool stopping_ DAVIT_GUARDED_BY(mutex_) = false;
};

}  // namespace davit::csi
