#pragma once
// The mount operations of a CSI node, behind an interface so that the semantics can be tested
// without root.

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace davit::csi {

/// One line of /proc/self/mountinfo.
struct MountEntry {
  std::string path;     // as the kernel knows it, without symlinks
  std::string fs_type;  // "fuse.davit"
  std::string source;
  std::string options;       // of this mount point: "ro,nosuid,nodev"
  std::uint64_t device = 0;  // major << 32 | minor; the same for all binds of one file system
};

/// The entries of a mountinfo text in order; lines that cannot be understood are left out.
std::vector<MountEntry> ParseMountInfo(std::string_view text);
/// The topmost mount on `path`, or nullptr.
const MountEntry* FindMount(const std::vector<MountEntry>& mounts, std::string_view path);

struct BindOptions {
  bool noexec = false;
  bool noatime = false;
};

/// Size of a file system as statvfs reports it.
struct FsUsage {
  std::uint64_t total_bytes = 0, used_bytes = 0, total_inodes = 0, used_inodes = 0;
};

/// Thread-safe. Nothing but Usage() asks the mounted file system anything, so nothing else can
/// hang on a dead daemon.
class Mounter {
 public:
  virtual ~Mounter() = default;
  virtual Result<std::vector<MountEntry>> List() = 0;
  /// `target` with the symlinks of its parent resolved, as mountinfo shows it. kNotFound when the
  /// parent does not exist.
  virtual Result<std::string> RealPath(const std::string& target) = 0;
  /// Makes the directory `target` unless it is there; its parent must exist, and neither it nor
  /// `source` may be a symlink. Then shows `source` there, read-only, nosuid, nodev.
  virtual Status BindReadOnly(const std::string& source, const std::string& target,
                              const BindOptions& options) = 0;
  /// Detaches every mount stacked on `target`; success when there is none.
  virtual Status Detach(const std::string& target) = 0;
  /// Removes the directory `target`, which is empty; success when it is missing.
  virtual Status RemoveTarget(const std::string& target) = 0;
  /// Asks the file system at `path`; may hang for ever.
  virtual Result<FsUsage> Usage(const std::string& path) = 0;

  /// The kernel's. `use_new_api`: try open_tree and move_mount (Linux 5.12) first, which show the
  /// mount only once it is read-only.
  static std::shared_ptr<Mounter> Create(bool use_new_api = true);
};

}  // namespace davit::csi
