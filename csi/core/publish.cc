// NodePublishVolume and NodeUnpublishVolume.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <ctime>

#include "common/base/log.h"
#include "csi/core/node_service.h"
#include "csi/core/registry_auth.h"

namespace davit::csi {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;

// How long dropping an image's mount may hold up an unpublish; what is left undone then is done
// by the next recovery.
constexpr seconds kReleasePatience{20};

// After these codes kubelet regards the mount as uncertain: it tries again or unpublishes. After
// any other it forgets the volume, so nothing may be left behind (docs/csi.md, "Error codes").
bool IsFinal(Code code) {
  switch (code) {
    case Code::kCancelled:
    case Code::kDeadlineExceeded:
    case Code::kUnavailable:
    case Code::kResourceExhausted:
    case Code::kAborted:
      return false;
    case Code::kInvalidArgument:
    case Code::kNotFound:
    case Code::kAlreadyExists:
    case Code::kPermissionDenied:
    case Code::kUnauthenticated:
    case Code::kDataLoss:
    case Code::kUnsupported:
    case Code::kFailedPrecondition:
    case Code::kInternal:
      return true;
  }
  return true;
}

// A reply must be on its way before the caller's deadline, or the caller never sees its text.
Context WithReplyMargin(const Context& ctx) {
  Context out = ctx;
  if (ctx.deadline) {
    const auto left = *ctx.deadline - std::chrono::steady_clock::now();
    out.deadline = *ctx.deadline - std::min<Duration>(left / 10, seconds(2));
  }
  return out;
}

std::string PodOf(const PublishRequest& request) {
  const auto value = [&](const char* key) {
    const auto it = request.attributes.find(key);
    return it == request.attributes.end() ? std::string() : it->second.substr(0, 256);
  };
  const std::string name = value("csi.storage.k8s.io/pod.name");
  return name.empty() ? name : value("csi.storage.k8s.io/pod.namespace") + "/" + name;
}

Error Busy(const std::string& volume_id) {
  return Error(Code::kAborted,
               fmt::format("another call on volume {} or its target is in progress", volume_id))
      .WithHint("the kubelet tries again by itself");
}

}  // namespace

Result<std::string> NodeService::Target(const std::string& path) const {
  DAVIT_TRY_ASSIGN(std::string target, NormalPath(path, "target_path"));
  const std::string own = options_.state_dir + "/";
  if (target + "/" == own || target.starts_with(own)) {
    return Error(Code::kInvalidArgument,
                 fmt::format("target_path {} is inside the driver's state directory", target));
  }
  return target;
}

KeyLocks::Hold NodeService::TryLock(const std::string& volume_id, const std::string& target) {
  return busy_.TryLock({"volume " + volume_id, "target " + target});
}

Status NodeService::Publish(const Context& ctx, const PublishRequest& request) {
  // Arguments come first: a wrong one is INVALID_ARGUMENT whether or not the volume is known.
  DAVIT_TRY(CheckVolumeId(request.volume_id));
  DAVIT_TRY_ASSIGN(const std::string target, Target(request.target_path));
  DAVIT_TRY_ASSIGN(const PublishArgs args, CheckPublish(request, options_.allow_oci_layouts));
  DAVIT_TRY_ASSIGN(const Secret auth, RegistryAuthOf(request.secrets));
  JournalEntry entry{.volume_id = request.volume_id,
                     .target = target,
                     .mount_id = MountIdOf(request.volume_id, args.spec),
                     .args = args,
                     .pod = PodOf(request),
                     .created_unix = static_cast<std::int64_t>(std::time(nullptr))};
  const log::Scope scope({{"volume", entry.volume_id}, {"image", args.spec.image}});

  const KeyLocks::Hold hold = TryLock(entry.volume_id, target);
  if (!hold) return Busy(entry.volume_id);
  DAVIT_TRY(CheckAgainstJournal(entry.volume_id, target, args));
  const auto before = journal_->Find(entry.volume_id, target);
  const bool was_published = before && before->published;
  if (!was_published) {
    if (before && before->mount_id != entry.mount_id) UndoPublish(*before);
    DAVIT_TRY(Begin(entry));
  }
  Status status = MountAndBind(WithReplyMargin(ctx), entry, auth);
  if (!status.ok()) {
    if (!was_published && IsFinal(status.error().code())) UndoPublish(entry);
    Error error = std::move(status).error();
    // The daemon's words pass through here on their way to an event that many may read.
    return Error(error.code(), WithoutSecrets(error.message(), auth), error.sys_errno())
        .WithHint(WithoutSecrets(error.hint(), auth));
  }
  if (!was_published) {
    entry.published = true;
    DAVIT_TRY(journal_->Put(entry));
    log::Info("volume published", {{"target", target}, {"pod", entry.pod}});
  }
  return {};
}

Status NodeService::CheckAgainstJournal(const std::string& volume_id, const std::string& target,
                                        const PublishArgs& args) const {
  for (const JournalEntry& other : journal_->OfTarget(target)) {
    if (other.volume_id == volume_id) continue;
    return Error(Code::kFailedPrecondition,
                 fmt::format("target {} already shows volume {}", target, other.volume_id))
        .WithHint("unpublish that volume first");
  }
  for (const JournalEntry& other : journal_->OfVolume(volume_id)) {
    if (other.target == target) {
      if (!other.published || other.args == args) continue;
      return Error(Code::kAlreadyExists,
                   fmt::format("volume {} is published at {} with other parameters (image {})",
                               volume_id, target, other.args.spec.image))
          .WithHint("unpublish it first; a pod gets new parameters when it is made anew");
    }
    if (AllowsSeveralTargets(args.mode) && AllowsSeveralTargets(other.args.mode)) continue;
    return Error(Code::kFailedPrecondition,
                 fmt::format(
                     "volume {} is in use at {}, and access mode {} allows one place only",
                     volume_id, other.target,
                     AccessModeName(AllowsSeveralTargets(args.mode) ? other.args.mode : args.mode)))
        .WithHint("use accessModes: [ReadOnlyMany]");
  }
  return {};
}

Status NodeService::Begin(const JournalEntry& entry) {
  // Found out before the image is fetched: nothing can be shown in a place that does not exist.
  auto real = mounter_->RealPath(entry.target);
  if (!real.ok()) {
    const Code code = real.error().code();
    return std::move(real).error().WithCode(code == Code::kNotFound ? Code::kFailedPrecondition
                                                                    : code);
  }
  return journal_->Put(entry);
}

Status NodeService::MountAndBind(const Context& ctx, const JournalEntry& entry,
                                 const Secret& auth) {
  auto info = images_.Ensure(ctx, entry.mount_id, entry.volume_id, entry.args.spec, auth);
  if (!info.ok()) return std::move(info).error();
  return Bind(entry);
}

Status NodeService::CheckTargetIsFree(const JournalEntry& entry, const MountEntry& there) const {
  if (IsDavitMount(there)) return {};
  return Error(Code::kFailedPrecondition, fmt::format("{} on {} is mounted at the target {}",
                                                      there.source, there.fs_type, entry.target))
      .WithHint("unmount it; the driver does not touch what it did not mount");
}

Status NodeService::Bind(const JournalEntry& entry) {
  const std::string source = images_.PathOf(entry.mount_id);
  DAVIT_TRY_ASSIGN(const std::string real, mounter_->RealPath(entry.target));
  DAVIT_TRY_ASSIGN(const auto mounts, mounter_->List());
  const MountEntry* image = FindMount(mounts, source);
  if (image == nullptr) {
    return Error(Code::kFailedPrecondition,
                 fmt::format("davitd reports a mount at {}, but this process does not see it",
                             source))
        .WithHint("both need one mount namespace, or mountPropagation: Bidirectional on " +
                  options_.state_dir);
  }
  if (const MountEntry* there = FindMount(mounts, real)) {
    if (there->device == image->device) return {};  // published before, and alive
    DAVIT_TRY(CheckTargetIsFree(entry, *there));
    log::Warn("a target shows a mount that is gone; mounting it again", {{"target", entry.target}});
    DAVIT_TRY(mounter_->Detach(entry.target));
  }
  return mounter_->BindReadOnly(source, entry.target, BindOptionsOf(entry.args));
}

// Best effort: what fails here is logged and left to recovery.
void NodeService::UndoPublish(const JournalEntry& entry) {
  const auto note = [&](std::string_view what, const Status& status) {
    if (!status.ok()) {
      log::Warn("clean-up after a failed publish",
                {{"step", what}, {"target", entry.target}, {"error", status.error()}});
    }
  };
  auto real = mounter_->RealPath(entry.target);
  auto mounts = mounter_->List();
  if (real.ok() && mounts.ok()) {
    const MountEntry* there = FindMount(*mounts, *real);
    if (there != nullptr && IsDavitMount(*there)) note("unmount", mounter_->Detach(entry.target));
    if (there == nullptr || IsDavitMount(*there)) {
      note("remove target", mounter_->RemoveTarget(entry.target));
    }
  }
  note("journal", journal_->Remove(entry.volume_id, entry.target));
  ReleaseIfUnused(Context{}, entry.mount_id);
}

void NodeService::ReleaseIfUnused(const Context& ctx, const std::string& mount_id) {
  if (journal_->References(mount_id) > 0) return;
  Status status = images_.Release(ctx.WithTimeout(kReleasePatience), mount_id);
  if (status.ok()) return;
  log::Warn("an image that no volume needs is still mounted; it will be tried again",
            {{"mount", mount_id}, {"error", status.error()}});
}

Status NodeService::Unpublish(const Context& ctx, const std::string& volume_id,
                              const std::string& target_path) {
  DAVIT_TRY(CheckVolumeId(volume_id));
  DAVIT_TRY_ASSIGN(const std::string target, Target(target_path));
  const log::Scope scope({{"volume", volume_id}});
  const KeyLocks::Hold hold = TryLock(volume_id, target);
  if (!hold) return Busy(volume_id);
  const auto entry = journal_->Find(volume_id, target);
  if (!entry) return UnpublishUnknown(volume_id, target);
  const log::Scope image({{"image", entry->args.spec.image}});
  // No lstat: with a dead daemon it would fail or hang. Detaching always works.
  DAVIT_TRY(mounter_->Detach(target));
  DAVIT_TRY(mounter_->RemoveTarget(target));
  DAVIT_TRY(journal_->Remove(volume_id, target));
  // The target is gone, which is what was asked for; the rest is the driver's own business.
  Context release;
  release.stop = ctx.stop;
  ReleaseIfUnused(release, entry->mount_id);
  log::Info("volume unpublished", {{"target", target}, {"pod", entry->pod}});
  return {};
}

Status NodeService::UnpublishUnknown(const std::string& volume_id, const std::string& target) {
  // A journal that was lost must not keep a pod from going away. But a target that another volume
  // uses, or that somebody else mounted, is left alone.
  for (const JournalEntry& other : journal_->OfTarget(target)) {
    return Error(Code::kFailedPrecondition, fmt::format("target {} shows volume {}, not {}", target,
                                                        other.volume_id, volume_id));
  }
  auto real = mounter_->RealPath(target);
  if (!real.ok()) {
    if (real.error().code() == Code::kNotFound) return {};
    return std::move(real).error();
  }
  DAVIT_TRY_ASSIGN(const auto mounts, mounter_->List());
  if (const MountEntry* there = FindMount(mounts, *real)) {
    DAVIT_TRY(CheckTargetIsFree(JournalEntry{.volume_id = volume_id, .target = target}, *there));
    DAVIT_TRY(mounter_->Detach(target));
  }
  Status removed = mounter_->RemoveTarget(target);
  if (!removed.ok()) {
    // Not a directory of the driver's making, then; what it holds is not the driver's to remove.
    log::Warn("left as it is", {{"target", target}, {"error", removed.error()}});
  }
  return {};
}

}  // namespace davit::csi
