#pragma once
// The implementation of NodeOps; its methods are in publish.cc, health.cc and recovery.cc.

#include <memory>
#include <string>
#include <vector>

#include "common/base/fd.h"
#include "csi/core/image_mounts.h"
#include "csi/core/journal.h"
#include "csi/core/key_locks.h"
#include "csi/core/node_ops.h"
#include "csi/core/usage_probe.h"

namespace davit::csi {

class NodeService final : public NodeOps {
 public:
  NodeService(Options options, daemon::Client& daemon, std::shared_ptr<Mounter> mounter,
              std::unique_ptr<Journal> journal, UniqueFd lock);

  Status Publish(const Context& ctx, const PublishRequest& request) override;
  Status Unpublish(const Context& ctx, const std::string& volume_id,
                   const std::string& target_path) override;
  Result<VolumeStats> Stats(const Context& ctx, const std::string& volume_id,
                            const std::string& volume_path) override;
  Result<VolumeHealth> Health(const Context& ctx, const std::string& volume_id,
                              const std::string& volume_path) override;
  std::string NodeId() const override { return options_.node_id; }
  std::uint64_t MaxVolumes() const override { return options_.max_volumes; }
  Status Recover(const Context& ctx) override;

 private:
  // publish.cc
  Status CheckAgainstJournal(const std::string& volume_id, const std::string& target,
                             const PublishArgs& args) const;
  Status Begin(const JournalEntry& entry);
  Status MountAndBind(const Context& ctx, const JournalEntry& entry, const Secret& auth);
  Status Bind(const JournalEntry& entry);
  Status CheckTargetIsFree(const JournalEntry& entry, const MountEntry& there) const;
  void UndoPublish(const JournalEntry& entry);
  Status UnpublishUnknown(const std::string& volume_id, const std::string& target);
  void ReleaseIfUnused(const Context& ctx, const std::string& mount_id);
  Result<std::string> Target(const std::string& path) const;
  KeyLocks::Hold TryLock(const std::string& volume_id, const std::string& target);

  // health.cc
  Result<JournalEntry> FindEntry(const std::string& volume_id, const std::string& path) const;
  VolumeHealth HealthOf(const Context& ctx, const JournalEntry& entry,
                        const Result<daemon::api::MountInfo>& info);

  // recovery.cc
  void DropOrphans(const Context& ctx, const std::vector<daemon::api::MountInfo>& mounts);
  Status RecoverEntry(const Context& ctx, const JournalEntry& entry, bool mounted);

  const Options options_;
  daemon::Client& daemon_;
  const std::shared_ptr<Mounter> mounter_;
  const std::unique_ptr<Journal> journal_;
  const UniqueFd lock_;  // flock on the state directory
  KeyLocks busy_;
  UsageProbe usage_;
  ImageMounts images_;
};

/// Whether a mount was made by a davit daemon, this one or one before it.
bool IsDavitMount(const MountEntry& mount);

}  // namespace davit::csi
