// NodeGetVolumeStats and NodeGetVolumeHealth.
#include <fmt/format.h>

#include <array>
#include <chrono>
#include <ctime>

#include "csi/core/node_service.h"

namespace davit::csi {
namespace {

using std::chrono::seconds;

// Short, because kubelet asks for every volume in turn.
constexpr seconds kDaemonPatience{5};
constexpr seconds kAnswerPatience{2};

VolumeHealth Bad(VolumeHealth::Status status, std::string reason, std::string message) {
  return {.status = status, .reason = std::move(reason), .message = std::move(message)};
}

std::string TimeText(std::int64_t unix_seconds) {
  const auto time = static_cast<std::time_t>(unix_seconds);
  std::tm parts{};
  if (unix_seconds <= 0 || ::gmtime_r(&time, &parts) == nullptr) return "an unknown time";
  std::array<char, 32> text{};
  std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
  return text.data();
}

VolumeHealth OfDaemonError(const Error& error, const std::string& image) {
  using S = VolumeHealth::Status;
  if (error.code() == Code::kNotFound) {
    return Bad(S::kInaccessible, "NotMounted",
               fmt::format("davitd does not know the mount of {} (it is mounted again within a "
                           "minute; otherwise see the log of davitd)",
                           image));
  }
  return Bad(S::kInaccessible, "DaemonUnavailable",
             fmt::format("davitd does not answer: {}", error.ToString()));
}

}  // namespace

Result<JournalEntry> NodeService::FindEntry(const std::string& volume_id,
                                            const std::string& path) const {
  const auto entries = journal_->OfVolume(volume_id);
  if (entries.empty()) {
    return Error(Code::kNotFound, fmt::format("volume {} is not published here", volume_id));
  }
  if (path.empty()) return entries.front();
  const auto normal = NormalPath(path, "volume_path");
  for (const JournalEntry& entry : entries) {
    if (normal.ok() && entry.target == *normal) return entry;
  }
  return Error(Code::kNotFound, fmt::format("volume {} is not published at {}", volume_id, path));
}

VolumeHealth NodeService::HealthOf(const Context& ctx, const JournalEntry& entry,
                                   const Result<daemon::api::MountInfo>& info) {
  using S = VolumeHealth::Status;
  const std::string& image = entry.args.spec.image;
  if (!info.ok()) return OfDaemonError(info.error(), image);
  if (info->state == "failed") {
    return Bad(S::kInaccessible, "MountFailed",
               fmt::format("mounting {} failed: {}", image, info->error));
  }
  if (!entry.published || info->state == "mounting") {
    const std::string why = info->error.empty() ? "" : ": " + info->error;
    return Bad(S::kInaccessible, "Mounting",
               fmt::format("{} is still being mounted{}", image, why));
  }
  auto mounts = mounter_->List();
  auto real = mounter_->RealPath(entry.target);
  if (!mounts.ok() || !real.ok()) {
    const Error& error = mounts.ok() ? real.error() : mounts.error();
    return Bad(S::kInaccessible, "TargetUnknown", error.ToString());
  }
  const MountEntry* there = FindMount(*mounts, *real);
  const MountEntry* source = FindMount(*mounts, images_.PathOf(entry.mount_id));
  if (there == nullptr || source == nullptr || there->device != source->device) {
    return Bad(S::kInaccessible, "TargetNotMounted",
               fmt::format("{} does not show the image any more (make the pod anew; containers "
                           "that run do not see mounts that come back)",
                           entry.target));
  }
  auto usage = usage_.Ask(ctx.WithTimeout(kAnswerPatience), images_.PathOf(entry.mount_id));
  if (!usage.ok()) {
    return Bad(S::kInaccessible, "MountDoesNotAnswer",
               fmt::format("{} (see the log of davitd)", usage.error().ToString()));
  }
  // What cannot be fetched ahead of readers is no trouble of theirs yet.
  if (!info->error.empty() && info->error_at_unix != 0) {
    return Bad(S::kDegraded, "ReadsFail",
               fmt::format("{} is mounted with {} of {} bytes here, and at {} a read failed: {}",
                           image, info->bytes_ready, info->bytes_total,
                           TimeText(info->error_at_unix), info->error));
  }
  return {};
}

Result<VolumeHealth> NodeService::Health(const Context& ctx, const std::string& volume_id,
                                         const std::string& volume_path) {
  DAVIT_TRY(CheckVolumeId(volume_id));
  DAVIT_TRY_ASSIGN(const JournalEntry entry, FindEntry(volume_id, volume_path));
  return HealthOf(ctx, entry, daemon_.Get(ctx.WithTimeout(kDaemonPatience), entry.mount_id));
}

Result<VolumeStats> NodeService::Stats(const Context& ctx, const std::string& volume_id,
                                       const std::string& volume_path) {
  DAVIT_TRY(CheckVolumeId(volume_id));
  if (volume_path.empty()) return Error(Code::kInvalidArgument, "volume_path is missing");
  DAVIT_TRY_ASSIGN(const JournalEntry entry, FindEntry(volume_id, volume_path));
  const auto info = daemon_.Get(ctx.WithTimeout(kDaemonPatience), entry.mount_id);
  const VolumeHealth health = HealthOf(ctx, entry, info);
  VolumeStats stats;
  stats.abnormal = health.status != VolumeHealth::Status::kHealthy;
  stats.condition = health.message;
  if (info.ok()) stats.total_bytes = info->bytes_total;
  if (health.status == VolumeHealth::Status::kHealthy ||
      health.status == VolumeHealth::Status::kDegraded) {
    auto usage = usage_.Ask(ctx.WithTimeout(kAnswerPatience), images_.PathOf(entry.mount_id));
    if (usage.ok()) {
      if (stats.total_bytes == 0) stats.total_bytes = usage->total_bytes;
      stats.total_inodes = usage->total_inodes;
      stats.used_inodes = usage->used_inodes;
      stats.inodes_known = true;
    }
  }
  // An image is full by nature: nothing can be added to it.
  stats.used_bytes = stats.total_bytes;
  if (stats.abnormal && stats.total_bytes == 0) {
    return Error(Code::kUnavailable, stats.condition);
  }
  return stats;
}

}  // namespace davit::csi
