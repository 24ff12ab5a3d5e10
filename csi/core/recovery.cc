// Recover(): makes the mounts agree with the journal.
#include <fmt/format.h>

#include <set>

#include "common/base/log.h"
#include "csi/core/node_service.h"

namespace davit::csi {
namespace {

using std::chrono::seconds;

constexpr seconds kListPatience{10};
// How long one image may hold up the recovery of the others; its mounting goes on meanwhile.
constexpr seconds kMountPatience{30};

bool IsMountId(const std::string& name) { return name.starts_with("csi-"); }

}  // namespace

void NodeService::DropOrphans(const Context& ctx,
                              const std::vector<daemon::api::MountInfo>& mounts) {
  std::set<std::string> candidates;
  // Other users of the daemon have mounts elsewhere; those are not this driver's.
  for (const auto& mount : mounts) {
    if (IsMountId(mount.id) && mount.mountpoint == images_.PathOf(mount.id)) {
      candidates.insert(mount.id);
    }
  }
  if (auto names = ListDirectory(options_.state_dir + "/mounts"); names.ok()) {
    for (const std::string& name : *names) {
      if (IsMountId(name)) candidates.insert(name);
    }
  }
  for (const std::string& id : candidates) {
    // A publish writes the journal before it mounts, so what is not in the journal is not wanted.
    if (journal_->References(id) > 0 || images_.Busy(id)) continue;
    log::Info("dropping a mount that no volume needs", {{"mount", id}});
    ReleaseIfUnused(ctx, id);
  }
}

Status NodeService::RecoverEntry(const Context& ctx, const JournalEntry& listed, bool mounted) {
  const KeyLocks::Hold hold = TryLock(listed.volume_id, listed.target);
  if (!hold) return {};  // a call is at work on it
  const auto entry = journal_->Find(listed.volume_id, listed.target);
  if (!entry) return {};
  const log::Scope scope({{"volume", entry->volume_id}, {"image", entry->args.spec.image}});
  if (auto real = mounter_->RealPath(entry->target); !real.ok()) {
    if (real.error().code() != Code::kNotFound) return std::move(real).error();
    log::Info("a volume's pod is gone; dropping the volume", {{"target", entry->target}});
    DAVIT_TRY(journal_->Remove(entry->volume_id, entry->target));
    ReleaseIfUnused(ctx, entry->mount_id);
    return {};
  }
  // Nobody was told that it is there: kubelet will ask again or give it up.
  if (!entry->published) return {};
  // Asking the daemon for what it has could wait for the image to be complete.
  if (mounted) return Bind(*entry);
  return MountAndBind(ctx.WithTimeout(kMountPatience), *entry, Secret());
}

Status NodeService::Recover(const Context& ctx) {
  DAVIT_TRY_ASSIGN(const auto mounts, daemon_.List(ctx.WithTimeout(kListPatience)));
  DropOrphans(ctx, mounts);
  std::set<std::string> mounted;
  for (const auto& mount : mounts) {
    if (mount.state == "mounted") mounted.insert(mount.id);
  }
  std::size_t failed = 0;
  std::string first;
  for (const JournalEntry& entry : journal_->All()) {
    DAVIT_TRY(ctx.Check("recover volumes"));
    Status status = RecoverEntry(ctx, entry, mounted.contains(entry.mount_id));
    if (status.ok()) continue;
    log::Warn("a volume could not be recovered; it will be tried again",
              {{"volume", entry.volume_id},
               {"image", entry.args.spec.image},
               {"target", entry.target},
               {"pod", entry.pod},
               {"error", status.error()}});
    if (failed++ == 0) first = status.error().ToString();
  }
  if (failed == 0) return {};
  return Error(Code::kUnavailable,
               fmt::format("{} volumes could not be recovered; the first: {}", failed, first));
}

}  // namespace davit::csi
