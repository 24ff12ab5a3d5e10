#pragma once
// FUSE mounts whose daemon is gone. The kernel's mount table is asked, never the mounts
// themselves: touching one can hang or fail.

#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace davit::daemon {

struct MountTableEntry {
  std::string mountpoint;  // unescaped
  std::string type;        // "fuse.davit", "ext4", ...
  std::string source;
};

/// The lines of a /proc/PID/mountinfo, in order (later mounts cover earlier ones).
std::vector<MountTableEntry> ParseMountInfo(std::string_view text);

/// True for the file system type of our FUSE mounts.
bool IsDavitMount(const MountTableEntry& entry);

/// Detaches FUSE mounts of davit at this path, all layers of them; the number. What others have
/// mounted there stays, and so does what lies below it.
Result<int> DetachDavitMounts(const std::string& mountpoint);

/// kFailedPrecondition when a FUSE mount of davit at the path still has its server; a dead one is
/// detached. For mounts that are not ours to know: another daemon's, or leftovers.
Status ClearMountpoint(const std::string& mountpoint);

}  // namespace davit::daemon
