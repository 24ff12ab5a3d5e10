#include "daemon/core/dead_mounts.h"

#include <fmt/format.h>
#include <sys/mount.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <cerrno>
#include <optional>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "rafs/fuse/session.h"

namespace davit::daemon {
namespace {

constexpr int kMaxLayers = 64;

// "\040" and its like, as the kernel escapes blanks and backslashes.
std::string Unescape(std::string_view text) {
  std::string out;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto digit = [&](std::size_t at) {
      return at < text.size() && text[at] >= '0' && text[at] <= '7' ? text[at] - '0' : -1;
    };
    if (text[i] == '\\' && digit(i + 1) >= 0 && digit(i + 2) >= 0 && digit(i + 3) >= 0) {
      out += static_cast<char>(digit(i + 1) * 64 + digit(i + 2) * 8 + digit(i + 3));
      i += 3;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::string_view TakeWord(std::string_view& line) {
  const std::size_t blank = line.find(' ');
  const std::string_view word = line.substr(0, blank);
  line.remove_prefix(blank == std::string_view::npos ? line.size() : blank + 1);
  return word;
}

std::string Normal(std::string_view path) {
  std::string out;
  for (char c : path) {
    if (c == '/' && out.ends_with('/')) continue;
    out += c;
  }
  while (out.size() > 1 && out.ends_with('/')) out.pop_back();
  return out;
}

// The topmost mount at a path.
Result<std::optional<MountTableEntry>> TopMount(const std::string& path) {
  DAVIT_TRY_ASSIGN(const std::string text, ReadFile("/proc/self/mountinfo", 64ULL << 20));
  std::optional<MountTableEntry> found;
  for (MountTableEntry& entry : ParseMountInfo(text)) {
    if (entry.mountpoint == path) found = std::move(entry);
  }
  return found;
}

}  // namespace

std::vector<MountTableEntry> ParseMountInfo(std::string_view text) {
  std::vector<MountTableEntry> out;
  while (!text.empty()) {
    const std::size_t end = text.find('\n');
    std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    for (int skipped = 0; skipped < 4; ++skipped) TakeWord(line);
    MountTableEntry entry;
    entry.mountpoint = Unescape(TakeWord(line));
    // Options and optional fields end with a single "-".
    while (!line.empty() && TakeWord(line) != "-") {
    }
    entry.type = Unescape(TakeWord(line));
    entry.source = Unescape(TakeWord(line));
    if (!entry.mountpoint.empty() && !entry.type.empty()) out.push_back(std::move(entry));
  }
  return out;
}

bool IsDavitMount(const MountTableEntry& entry) { return entry.type == "fuse.davit"; }

Result<int> DetachDavitMounts(const std::string& mountpoint) {
  const std::string path = Normal(mountpoint);
  for (int count = 0; count < kMaxLayers; ++count) {
    DAVIT_TRY_ASSIGN(const auto top, TopMount(path));
    if (!top || !IsDavitMount(*top)) return count;
    Status done;
    if (::umount2(path.c_str(), MNT_DETACH | UMOUNT_NOFOLLOW) != 0) {
      done = errno == EPERM && ::geteuid() != 0 ? rafs::DetachAsUser(path)
                                                : Error::FromErrno(errno, "unmount");
    }
    if (!done.ok()) {
      return std::move(done)
          .error()
          .WithContext("detach the dead mount at " + path)
          .WithHint("unmount it by hand: umount -l " + path);
    }
    log::Info("detached a mount without a daemon", {{"mountpoint", path}});
  }
  return Error(Code::kFailedPrecondition,
               fmt::format("more than {} mounts lie over each other at {}", kMaxLayers, path));
}

Status ClearMountpoint(const std::string& mountpoint) {
  const std::string path = Normal(mountpoint);
  DAVIT_TRY_ASSIGN(const auto top, TopMount(path));
  if (!top || !IsDavitMount(*top)) return {};
  struct statfs ignored{};
  if (::statfs(path.c_str(), &ignored) == 0 || errno != ENOTCONN) {
    return Error(Code::kFailedPrecondition,
                 fmt::format("{} is a mount of another davit process", path))
        .WithHint("choose another directory, or unmount it there");
  }
  DAVIT_TRY_ASSIGN([[maybe_unused]] const int count, DetachDavitMounts(path));
  return {};
}

}  // namespace davit::daemon
