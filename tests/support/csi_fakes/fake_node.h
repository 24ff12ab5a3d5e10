#pragma once
// A node without a kernel and without davitd: a mounter and a daemon that share a mount table.

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/base/sync.h"
#include "csi/core/mounter.h"
#include "daemon/client/client.h"

namespace davit::test {

/// The mount table of the fake node, and the directories of pods in it. Thread-safe.
class MountTable {
 public:
  void Add(const csi::MountEntry& entry);
  /// Takes the topmost mount on `path` away; false when there is none.
  bool RemoveTop(const std::string& path);
  std::vector<csi::MountEntry> List() const;
  std::optional<csi::MountEntry> Top(const std::string& path) const;
  std::uint64_t NewDevice() { return ++devices_; }

  mutable Mutex mutex;
  std::set<std::string> directories DAVIT_GUARDED_BY(mutex);

 private:
  std::vector<csi::MountEntry> mounts_ DAVIT_GUARDED_BY(mutex);
  std::atomic<std::uint64_t> devices_ = 100;
};

/// Keeps to the contract of Mounter over a MountTable. A parent directory exists when its path
/// starts with "/pods/" or it is below `real_root`, whose files are real.
class FakeMounter final : public csi::Mounter {
 public:
  FakeMounter(MountTable& table, std::string real_root)
      : table_(table), real_root_(std::move(real_root)) {}

  Result<std::vector<csi::MountEntry>> List() override { return table_.List(); }
  Result<std::string> RealPath(const std::string& target) override;
  Status BindReadOnly(const std::string& source, const std::string& target,
                      const csi::BindOptions& options) override;
  Status Detach(const std::string& target) override;
  Status RemoveTarget(const std::string& target) override;
  Result<csi::FsUsage> Usage(const std::string& path) override;

  /// Errors to give back, when set.
  std::function<Status(const std::string& target)> on_bind, on_detach;
  std::function<Status(const std::string& path)> on_usage;
  std::atomic<int> binds = 0;

 private:
  bool Exists(const std::string& directory) const;
  MountTable& table_;
  const std::string real_root_;
};

/// Keeps to the contract of daemon::Client in memory.
class FakeDaemon final : public daemon::Client {
 public:
  explicit FakeDaemon(MountTable& table) : table_(table) {}

  Result<daemon::api::DaemonInfo> Info(const Context& ctx) override;
  Result<daemon::api::MountInfo> Mount(const Context& ctx,
                                       const daemon::api::MountRequest& request) override;
  Status Unmount(const Context& ctx, const std::string& id) override;
  Result<daemon::api::MountInfo> Get(const Context& ctx, const std::string& id) override;
  Result<std::vector<daemon::api::MountInfo>> List(const Context& ctx) override;
  Result<std::string> Call(const Context& ctx, const std::string& method, const std::string& path,
                           const std::string& body) override;

  /// As if it was killed: its mounts stay in the table but are dead, and it knows nothing.
  void Die();
  /// Its mounts get new file systems on the same places.
  void ComeBack();
  bool Knows(const std::string& id) const;
  std::vector<daemon::api::MountRequest> requests() const;
  void Change(const std::string& id, const std::function<void(daemon::api::MountInfo&)>& change);
  /// A mount that nobody of CSI made.
  void AddForeign(const std::string& id, const std::string& mountpoint);

  /// Called in Mount before anything happens; an error is the reply.
  std::function<Status(const Context&, const daemon::api::MountRequest&)> on_mount;
  std::function<Status(const std::string& id)> on_unmount;
  std::atomic<bool> away = false;
  std::atomic<int> unmounts = 0;
  std::atomic<bool> mounts_visible = true;

 private:
  Status CheckThere() const;
  MountTable& table_;
  mutable Mutex mutex_;
  std::map<std::string, daemon::api::MountInfo> mounts_ DAVIT_GUARDED_BY(mutex_);
  std::vector<daemon::api::MountRequest> requests_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::test
