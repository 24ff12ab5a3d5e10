#include "rafs/fuse/mount_point.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <climits>
#include <cstdlib>
#include <sstream>
#include <utility>
#include <vector>

extern char** environ;

namespace davit::rafs {
namespace {

constexpr int kFsopenCloexec = 1;   // FSOPEN_CLOEXEC, FSMOUNT_CLOEXEC: not in Debian 12's headers
constexpr int kFsconfigCreate = 6;  // FSCONFIG_CMD_CREATE

// mountinfo writes space, tab, newline and backslash as \ooo.
std::string Unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool octal = text[i] == '\\' && i + 3 < text.size();
    if (octal) {
      out.push_back(static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 +
                                      (text[i + 3] - '0')));
      i += 3;
    } else {
      out.push_back(text[i]);
    }
  }
  return out;
}

Result<MountIdentity> FindInMountInfo(const MountIdentity& mount) {
  DAVIT_TRY_ASSIGN(const std::string table, ReadFile("/proc/self/mountinfo"));
  const std::string device = std::to_string(mount.major) + ":" + std::to_string(mount.minor);
  std::istringstream lines(table);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream fields(line);
    std::uint64_t id = 0, parent = 0;
    std::string dev, root, path;
    fields >> id >> parent >> dev >> root >> path;
    if (dev != device || Unescape(path) != mount.path) continue;
    if (mount.mount_id != 0 && id != mount.mount_id) continue;
    return MountIdentity{mount.path, mount.major, mount.minor, id};
  }
  return Error(Code::kNotFound, mount.path + " is no longer a mount point of device " + device);
}

Status RunHelper(const std::vector<std::string>& words) {
  std::vector<char*> argv;
  argv.reserve(words.size() + 1);
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  pid_t pid = 0;
  if (const int err = ::posix_spawnp(&pid, argv[0], nullptr, nullptr, argv.data(), environ)) {
    return Error::FromErrno(err, "run " + words[0]).WithHint("install the package fuse3");
  }
  int state = 0;
  while (::waitpid(pid, &state, 0) < 0) {
    if (errno != EINTR) return Error::FromErrno(errno, "wait for " + words[0]);
  }
  if (WIFEXITED(state) && WEXITSTATUS(state) == 0) return {};
  return Error(Code::kFailedPrecondition, words[0] + " could not unmount " + words.back(), EBUSY)
      .WithHint("close the files that are open below it, or unmount lazily");
}

// fusectl mounted nowhere (a container): a detached instance of our own, visible to nobody.
Result<UniqueFd> OpenFuseControl() {
  auto mounted = OpenFile("/sys/fs/fuse/connections", O_RDONLY | O_DIRECTORY);
  if (mounted.ok()) {
    struct stat root{};
    if (::fstatat(mounted->get(), "..", &root, 0) == 0) {
      struct stat here{};
      // Without fusectl the directory is an empty one of sysfs itself.
      if (::fstat(mounted->get(), &here) == 0 && here.st_dev != root.st_dev) return mounted;
    }
  }
  const UniqueFd context(static_cast<int>(::syscall(SYS_fsopen, "fusectl", kFsopenCloexec)));
  if (!context) return Error::FromErrno(errno, "open the fusectl file system");
  if (::syscall(SYS_fsconfig, context.get(), kFsconfigCreate, nullptr, nullptr, 0) != 0) {
    return Error::FromErrno(errno, "make a fusectl file system");
  }
  UniqueFd tree(static_cast<int>(::syscall(SYS_fsmount, context.get(), kFsopenCloexec, 0)));
  if (!tree) return Error::FromErrno(errno, "mount a fusectl file system");
  return tree;
}

}  // namespace

Result<std::string> CheckMountpoint(const std::string& path) {
  char* canonical = ::realpath(path.c_str(), nullptr);
  if (canonical == nullptr) {
    const int err = errno;
    Error error = Error::FromErrno(err, "mount point " + path);
    if (err == ENOTCONN) {
      return std::move(error).WithHint("a FUSE mount without a server is there: umount -l " + path);
    }
    return std::move(error).WithHint("create the directory first");
  }
  std::string out = canonical;
  ::free(canonical);
  struct stat st{};
  if (::stat(out.c_str(), &st) != 0) {
    return Error::FromErrno(errno, "mount point " + out)
        .WithHint("if a FUSE mount without a server is there: umount -l " + out);
  }
  if (!S_ISDIR(st.st_mode)) {
    return Error(Code::kInvalidArgument, "mount point " + out + " is not a directory", ENOTDIR);
  }
  return out;
}

Result<UniqueFd> MountDirectly(const FuseOptions& options, const std::string& path) {
  auto device = OpenFile("/dev/fuse", O_RDWR);
  if (!device) {
    return std::move(device).error().WithHint(
        "load the fuse module (modprobe fuse); a container needs the device /dev/fuse");
  }
  std::string data = "fd=" + std::to_string(device->get()) +
                     ",rootmode=40000,user_id=" + std::to_string(::geteuid()) +
                     ",group_id=" + std::to_string(::getegid()) + ",max_read=1048576";
  if (options.default_permissions) data += ",default_permissions";
  if (options.allow_other) data += ",allow_other";
  // Set-user-id programs and device nodes of an image get no power over the node.
  constexpr unsigned long kFlags = MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOATIME;
  if (::mount(options.fs_name.c_str(), path.c_str(), "fuse.davit", kFlags, data.c_str()) != 0) {
    const int err = errno;
    return Error::FromErrno(err, "mount a FUSE file system on " + path)
        .WithHint(err == EPERM ? "it takes root (CAP_SYS_ADMIN)" : "see the kernel's log (dmesg)");
  }
  return device;
}

bool UsersMayAllowOther(const std::string& config) {
  const auto text = ReadFile(config, 1U << 20);
  if (!text) return false;
  std::istringstream lines(*text);
  for (std::string line; std::getline(lines, line);) {
    std::istringstream words(line);
    std::string first, second;
    words >> first >> second;
    if (first == "user_allow_other" && (second.empty() || second.starts_with('#'))) return true;
  }
  return false;
}

Result<MountIdentity> IdentifyMount(const std::string& path) {
  struct statx info{};
#ifndef STATX_MNT_ID
  constexpr unsigned STATX_MNT_ID = 0x1000;
#endif
  // DONT_SYNC: the kernel must not ask the server, which may be the caller.
  if (::statx(AT_FDCWD, path.c_str(), AT_STATX_DONT_SYNC | AT_NO_AUTOMOUNT,
              STATX_TYPE | STATX_MNT_ID, &info) != 0) {
    return Error::FromErrno(errno, "look at the mount point " + path);
  }
  MountIdentity mount{path, info.stx_dev_major, info.stx_dev_minor, 0};
  if ((info.stx_mask & STATX_MNT_ID) != 0) mount.mount_id = info.stx_mnt_id;
  return mount;
}

bool IsMounted(const MountIdentity& mount) {
  const auto now = IdentifyMount(mount.path);
  if (now && now->major == mount.major && now->minor == mount.minor &&
      now->mount_id == mount.mount_id) {
    return true;
  }
  // Mounted over, or not to be reached by path any more: the table knows.
  return FindInMountInfo(mount).ok();
}

Status UnmountIdentity(const MountIdentity& mount, int flags) {
  const auto top = IdentifyMount(mount.path);
  const bool is_top = top && top->major == mount.major && top->minor == mount.minor &&
                      top->mount_id == mount.mount_id;
  if (!is_top) {
    if (!FindInMountInfo(mount).ok()) return {};
    // ENOTCONN after an abort is still our mount; another device means that one lies above.
    if (top) {
      return Error(Code::kFailedPrecondition, "another file system is mounted over " + mount.path,
                   EBUSY)
          .WithHint("unmount that one first");
    }
  }
  if (::umount2(mount.path.c_str(), flags | UMOUNT_NOFOLLOW) == 0) return {};
  const int err = errno;
  if (err == EPERM && ::geteuid() != 0) {
    if ((flags & MNT_DETACH) != 0) return DetachAsUser(mount.path);
    return RunHelper({"fusermount3", "-u", "--", mount.path});
  }
  if ((err == EINVAL || err == ENOENT) && !FindInMountInfo(mount).ok()) return {};
  Error error = Error::FromErrno(err, "unmount " + mount.path);
  if (err != EBUSY) return error;
  return std::move(error)
      .WithCode(Code::kFailedPrecondition)
      .WithHint("close the files that are open below it (fuser -vm " + mount.path +
                "), or unmount lazily");
}

Status DetachAsUser(const std::string& path) {
  return RunHelper({"fusermount3", "-u", "-z", "--", path});
}

Status AbortConnection(const MountIdentity& mount) {
  DAVIT_TRY_ASSIGN(const UniqueFd control, OpenFuseControl());
  // The kernel names connections by the minor number of the mount's device.
  const std::string name = std::to_string(mount.minor) + "/abort";
  const UniqueFd file(::openat(control.get(), name.c_str(), O_WRONLY | O_CLOEXEC));
  if (!file) {
    if (errno == ENOENT) return {};  // gone already
    return Error::FromErrno(errno, "open the FUSE connection " + name);
  }
  return WriteFull(file.get(), AsBytes("1"));
}

Status SetReadAhead(const MountIdentity& mount, std::uint32_t bytes) {
  const std::string path = "/sys/class/bdi/" + std::to_string(mount.major) + ":" +
                           std::to_string(mount.minor) + "/read_ahead_kb";
  DAVIT_TRY_ASSIGN(const std::string now, ReadFile(path, 64));
  const std::uint32_t wanted = bytes / 1024;
  if (std::strtoul(now.c_str(), nullptr, 10) >= wanted) return {};
  DAVIT_TRY_ASSIGN(const UniqueFd file, OpenFile(path, O_WRONLY));
  return WriteFull(file.get(), AsBytes(std::to_string(wanted)));
}

}  // namespace davit::rafs
