#include <fcntl.h>
#include <linux/openat2.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <utility>

#include "common/base/fd.h"
#include "csi/core/mounter.h"

namespace davit::csi {
namespace {

// Enough for any stack that a retried publish can leave; a bound, so that no loop is endless.
constexpr int kMaxStackedMounts = 64;
constexpr std::uint64_t kMountInfoLimit = 64ULL << 20;

// The parent of a target, held open, and the target's name in it. What happens to the path in the
// meantime cannot redirect what is done through it.
struct Target {
  UniqueFd parent;
  std::string name;

  // A path to the target that goes through the open parent.
  std::string ProcPath() const {
    return "/proc/self/fd/" + std::to_string(parent.get()) + "/" + name;
  }
};

Result<Target> OpenParent(const std::string& target) {
  const std::size_t slash = target.find_last_of('/');
  if (slash == std::string::npos || slash + 1 == target.size()) {
    return Error(Code::kInvalidArgument, "not a path of a directory: " + target);
  }
  const std::string parent = slash == 0 ? "/" : target.substr(0, slash);
  open_how how{};
  how.flags = O_PATH | O_DIRECTORY | O_CLOEXEC;
  // Symlinks above the parent are the administrator's (a kubelet directory on another disk).
  how.resolve = RESOLVE_NO_MAGICLINKS;
  const long fd = ::syscall(SYS_openat2, AT_FDCWD, parent.c_str(), &how, sizeof how);
  if (fd < 0) return Error::FromErrno(errno, "open the parent directory " + parent);
  return Target{UniqueFd(static_cast<int>(fd)), target.substr(slash + 1)};
}

Result<UniqueFd> OpenDirectoryNoFollow(int at, const std::string& name, const std::string& path) {
  UniqueFd fd(::openat(at, name.c_str(), O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
  if (!fd) {
    const int reason = errno;
    Error error = Error::FromErrno(reason, "open " + path);
    if (reason == ENOTDIR || reason == ELOOP) {
      error = Error(Code::kFailedPrecondition, path + " is not a directory", reason)
                  .WithHint("remove it; the driver makes the directory itself");
    }
    return error;
  }
  return fd;
}

Error MountError(int reason, std::string_view what) {
  Error error = Error::FromErrno(reason, what);
  if (reason != EPERM) return error;
  return std::move(error).WithHint("davit-csi needs CAP_SYS_ADMIN (a privileged container)");
}

// A detached, read-only copy of the mount at `source`, put onto `target`: nobody ever sees it
// writable. kUnsupported when the kernel is older than 5.12.
Status BindDetached(const std::string& source, int target, const BindOptions& options) {
  UniqueFd tree(::open_tree(AT_FDCWD, source.c_str(),
                            OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_SYMLINK_NOFOLLOW));
  if (!tree) return MountError(errno, "clone the mount " + source);
  mount_attr attr{};
  attr.attr_set = MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV;
  if (options.noexec) attr.attr_set |= MOUNT_ATTR_NOEXEC;
  if (options.noatime) {
    attr.attr_clr |= MOUNT_ATTR__ATIME;
    attr.attr_set |= MOUNT_ATTR_NOATIME;
  }
  if (::mount_setattr(tree.get(), "", AT_EMPTY_PATH, &attr, sizeof attr) != 0) {
    return Error::FromErrno(errno, "make the mount read-only");
  }
  if (::move_mount(tree.get(), "", target, "", MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) !=
      0) {
    return Error::FromErrno(errno, "attach the mount");
  }
  return {};
}

// mount(2) in two steps, for older kernels.
Status BindClassic(const std::string& source, const Target& target, int target_fd,
                   const BindOptions& options) {
  const std::string by_fd = "/proc/self/fd/" + std::to_string(target_fd);
  if (::mount(source.c_str(), by_fd.c_str(), nullptr, MS_BIND, nullptr) != 0) {
    return MountError(errno, "bind mount");
  }
  unsigned long flags = MS_BIND | MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NODEV;
  if (options.noexec) flags |= MS_NOEXEC;
  if (options.noatime) flags |= MS_NOATIME;
  const std::string path = target.ProcPath();
  if (::mount(nullptr, path.c_str(), nullptr, flags, nullptr) != 0) {
    Error error = Error::FromErrno(errno, "make the bind mount read-only");
    ::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW);
    return error;
  }
  return {};
}

class LinuxMounter final : public Mounter {
 public:
  explicit LinuxMounter(bool use_new_api) : use_new_api_(use_new_api) {}

  Result<std::vector<MountEntry>> List() override {
    DAVIT_TRY_ASSIGN(const std::string text, ReadFile("/proc/self/mountinfo", kMountInfoLimit));
    return ParseMountInfo(text);
  }

  Result<std::string> RealPath(const std::string& target) override {
    DAVIT_TRY_ASSIGN(const Target opened, OpenParent(target));
    std::array<char, 4097> buffer{};
    const std::string link = "/proc/self/fd/" + std::to_string(opened.parent.get());
    const ssize_t n = ::readlink(link.c_str(), buffer.data(), buffer.size() - 1);
    if (n < 0) return Error::FromErrno(errno, "readlink " + link);
    std::string path(buffer.data(), static_cast<std::size_t>(n));
    if (path != "/") path += '/';
    return path + opened.name;
  }

  Status BindReadOnly(const std::string& source, const std::string& target,
                      const BindOptions& options) override {
    DAVIT_TRY_ASSIGN(const Target opened, OpenParent(target));
    if (::mkdirat(opened.parent.get(), opened.name.c_str(), 0750) != 0 && errno != EEXIST) {
      return Error::FromErrno(errno, "make the directory " + target);
    }
    DAVIT_TRY_ASSIGN(const UniqueFd fd,
                     OpenDirectoryNoFollow(opened.parent.get(), opened.name, target));
    Status status = Error(Code::kUnsupported, "not tried");
    if (use_new_api_) status = BindDetached(source, fd.get(), options);
    if (!status.ok() && status.error().code() == Code::kUnsupported) {
      status = BindClassic(source, opened, fd.get(), options);
    }
    if (!status.ok()) return std::move(status).error().WithContext(target);
    return {};
  }

  Status Detach(const std::string& target) override {
    auto opened = OpenParent(target);
    if (!opened.ok()) return MissingIsSuccess(std::move(opened).error());
    const std::string path = opened->ProcPath();
    for (int i = 0; i < kMaxStackedMounts; ++i) {
      if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) == 0) continue;
      if (errno == EINVAL || errno == ENOENT) return {};  // not a mount point, or not there
      return MountError(errno, "unmount " + target);
    }
    return Error(Code::kInternal, "more than 64 mounts are stacked on " + target)
        .WithHint("see /proc/self/mountinfo for who mounts there");
  }

  Status RemoveTarget(const std::string& target) override {
    auto opened = OpenParent(target);
    if (!opened.ok()) return MissingIsSuccess(std::move(opened).error());
    if (::unlinkat(opened->parent.get(), opened->name.c_str(), AT_REMOVEDIR) == 0) return {};
    if (errno == ENOENT) return {};
    const int reason = errno;
    if (reason == ENOTEMPTY || reason == EEXIST) {
      return Error(Code::kFailedPrecondition, target + " holds files that are not the driver's",
                   reason)
          .WithHint("look at them and remove them; the driver only removes an empty directory");
    }
    return Error::FromErrno(reason, "remove the directory " + target);
  }

  Result<FsUsage> Usage(const std::string& path) override {
    struct statvfs fs{};
    if (::statvfs(path.c_str(), &fs) != 0) return Error::FromErrno(errno, "statvfs " + path);
    return FsUsage{.total_bytes = fs.f_blocks * fs.f_frsize,
                   .used_bytes = (fs.f_blocks - fs.f_bfree) * fs.f_frsize,
                   .total_inodes = fs.f_files,
                   .used_inodes = fs.f_files - fs.f_ffree};
  }

 private:
  static Status MissingIsSuccess(Error error) {
    if (error.code() == Code::kNotFound) return {};
    return error;
  }

  const bool use_new_api_;
};

}  // namespace

std::shared_ptr<Mounter> Mounter::Create(bool use_new_api) {
  return std::make_shared<LinuxMounter>(use_new_api);
}

}  // namespace davit::csi
