#include "tests/support/csi_fakes/fake_node.h"

#include <unistd.h>

#include <utility>

namespace davit::test {

using daemon::api::MountInfo;

void MountTable::Add(const csi::MountEntry& entry) {
  MutexLock lock(mutex);
  mounts_.push_back(entry);
}

bool MountTable::RemoveTop(const std::string& path) {
  MutexLock lock(mutex);
  for (auto it = mounts_.rbegin(); it != mounts_.rend(); ++it) {
    if (it->path != path) continue;
    mounts_.erase(std::next(it).base());
    return true;
  }
  return false;
}

std::vector<csi::MountEntry> MountTable::List() const {
  MutexLock lock(mutex);
  return mounts_;
}

std::optional<csi::MountEntry> MountTable::Top(const std::string& path) const {
  MutexLock lock(mutex);
  const csi::MountEntry* found = csi::FindMount(mounts_, path);
  if (found == nullptr) return std::nullopt;
  return *found;
}

bool FakeMounter::Exists(const std::string& directory) const {
  if (directory.starts_with(real_root_)) return ::access(directory.c_str(), F_OK) == 0;
  if (directory == "/pods") return true;
  MutexLock lock(table_.mutex);
  return table_.directories.contains(directory);
}

Result<std::string> FakeMounter::RealPath(const std::string& target) {
  const std::string parent = target.substr(0, target.find_last_of('/'));
  if (!Exists(parent)) return Error(Code::kNotFound, "no directory " + parent);
  return target;
}

Status FakeMounter::BindReadOnly(const std::string& source, const std::string& target,
                                 const csi::BindOptions& options) {
  ++binds;
  if (on_bind) DAVIT_TRY(on_bind(target));
  DAVIT_TRY(RealPath(target));
  const auto from = table_.Top(source);
  if (!from) return Error(Code::kInternal, "not a mount: " + source);
  {
    MutexLock lock(table_.mutex);
    table_.directories.insert(target);
  }
  csi::MountEntry entry = *from;
  entry.path = target;
  entry.options = std::string("ro,nosuid,nodev") + (options.noexec ? ",noexec" : "");
  table_.Add(entry);
  return {};
}

Status FakeMounter::Detach(const std::string& target) {
  if (on_detach) DAVIT_TRY(on_detach(target));
  while (table_.RemoveTop(target)) {
  }
  return {};
}

Status FakeMounter::RemoveTarget(const std::string& target) {
  if (table_.Top(target)) return Error(Code::kFailedPrecondition, "busy: " + target, EBUSY);
  if (target.starts_with(real_root_)) {
    ::rmdir(target.c_str());
    return {};
  }
  MutexLock lock(table_.mutex);
  table_.directories.erase(target);
  return {};
}

Result<csi::FsUsage> FakeMounter::Usage(const std::string& path) {
  if (on_usage) DAVIT_TRY(on_usage(path));
  return csi::FsUsage{
      .total_bytes = 4096, .used_bytes = 4096, .total_inodes = 38000, .used_inodes = 38000};
}

Status FakeDaemon::CheckThere() const {
  if (away) return Error(Code::kUnavailable, "connect /run/davit.sock: Connection refused");
  return {};
}

Result<daemon::api::DaemonInfo> FakeDaemon::Info(const Context&) {
  DAVIT_TRY(CheckThere());
  return daemon::api::DaemonInfo{.version = "0", .state = "running", .pid = 4242};
}

Result<MountInfo> FakeDaemon::Mount(const Context& ctx, const daemon::api::MountRequest& request) {
  DAVIT_TRY(CheckThere());
  {
    MutexLock lock(mutex_);
    requests_.push_back(request);
  }
  if (on_mount) DAVIT_TRY(on_mount(ctx, request));
  MutexLock lock(mutex_);
  if (const auto it = mounts_.find(request.id); it != mounts_.end()) {
    if (it->second.source == request.source) return it->second;
    return Error(Code::kAlreadyExists, request.id + " has other parameters");
  }
  MountInfo info{.id = request.id,
                 .source = request.source,
                 .mountpoint = request.mountpoint,
                 .state = "mounted",
                 .bytes_total = 1'000'000,
                 .bytes_ready = 250'000};
  mounts_[request.id] = info;
  if (mounts_visible) {
    table_.Add({.path = request.mountpoint,
                .fs_type = "fuse.davit",
                .source = "davit",
                .options = "ro",
                .device = table_.NewDevice()});
  }
  return info;
}

Status FakeDaemon::Unmount(const Context&, const std::string& id) {
  DAVIT_TRY(CheckThere());
  if (on_unmount) DAVIT_TRY(on_unmount(id));
  ++unmounts;
  MutexLock lock(mutex_);
  const auto it = mounts_.find(id);
  if (it == mounts_.end()) return {};
  table_.RemoveTop(it->second.mountpoint);
  mounts_.erase(it);
  return {};
}

Result<MountInfo> FakeDaemon::Get(const Context&, const std::string& id) {
  DAVIT_TRY(CheckThere());
  MutexLock lock(mutex_);
  const auto it = mounts_.find(id);
  if (it == mounts_.end()) return Error(Code::kNotFound, "no mount " + id);
  return it->second;
}

Result<std::vector<MountInfo>> FakeDaemon::List(const Context&) {
  DAVIT_TRY(CheckThere());
  MutexLock lock(mutex_);
  std::vector<MountInfo> out;
  for (const auto& [id, info] : mounts_) out.push_back(info);
  return out;
}

Result<std::string> FakeDaemon::Call(const Context&, const std::string&, const std::string&,
                                     const std::string&) {
  return Error(Code::kUnsupported, "not part of these tests");
}

void FakeDaemon::Die() {
  away = true;
  MutexLock lock(mutex_);
  mounts_.clear();
}

void FakeDaemon::ComeBack() { away = false; }

bool FakeDaemon::Knows(const std::string& id) const {
  MutexLock lock(mutex_);
  return mounts_.contains(id);
}

std::vector<daemon::api::MountRequest> FakeDaemon::requests() const {
  MutexLock lock(mutex_);
  return requests_;
}

void FakeDaemon::Change(const std::string& id, const std::function<void(MountInfo&)>& change) {
  MutexLock lock(mutex_);
  change(mounts_.at(id));
}

void FakeDaemon::AddForeign(const std::string& id, const std::string& mountpoint) {
  MutexLock lock(mutex_);
  mounts_[id] = MountInfo{.id = id, .source = "x", .mountpoint = mountpoint, .state = "mounted"};
}

}  // namespace davit::test
