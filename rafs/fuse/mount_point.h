#pragma once
// The kernel's side of a FUSE mount: mount, recognise, unmount, abort; internal to rafs/fuse.

#include <cstdint>
#include <string>

#include "common/base/clock.h"
#include "common/base/fd.h"
#include "rafs/fuse/session.h"

namespace davit::rafs {

/// One mount among all, also after others mounted over it or somewhere with the same name.
struct MountIdentity {
  std::string path;  // canonical
  unsigned major = 0, minor = 0;
  std::uint64_t mount_id = 0;  // 0: the kernel does not tell
};

/// The canonical path of a directory to mount on; says what to do about a dead mount there.
Result<std::string> CheckMountpoint(const std::string& path);
/// mount(2) with a fresh /dev/fuse; kPermissionDenied without CAP_SYS_ADMIN.
Result<UniqueFd> MountDirectly(const FuseOptions& options, const std::string& path);
/// False when /etc/fuse.conf (at `config`) does not let users mount with allow_other.
bool UsersMayAllowOther(const std::string& config = "/etc/fuse.conf");

/// What is mounted at a path now; asks the kernel only, never the file system's server.
Result<MountIdentity> IdentifyMount(const std::string& path);
/// Still mounted at its path (perhaps below another mount).
bool IsMounted(const MountIdentity& mount);
/// umount2 with `flags`, or fusermount3 for users. kFailedPrecondition when busy; success when it
/// is gone already. Never touches another mount at the same path.
Status UnmountIdentity(const MountIdentity& mount, int flags);
/// Ends the connection: pending and later requests fail with ENOTCONN.
Status AbortConnection(const MountIdentity& mount);
/// Raises the kernel's read-ahead for the mount; kernels start with 128 KiB. An error where /sys
/// is read-only (containers).
Status SetReadAhead(const MountIdentity& mount, std::uint32_t bytes);

}  // namespace davit::rafs
