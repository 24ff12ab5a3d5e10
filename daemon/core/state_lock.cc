#include "daemon/core/state_lock.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

namespace davit::daemon {

Result<UniqueFd> LockStateDirectory(const std::string& directory) {
  const std::string path = directory + "/lock";
  DAVIT_TRY_ASSIGN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_NOFOLLOW));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return Error::FromErrno(errno, "lock " + path);
    const Result<std::string> owner = ReadFile(path, 64);
    const std::string pid =
        owner.ok() && !owner->empty() ? owner->substr(0, owner->find('\n')) : "?";
    return Error(Code::kFailedPrecondition,
                 fmt::format("state directory {} is in use by process {}", directory, pid))
        .WithHint("stop that process or configure another node.state_dir");
  }
  // For people; the lock itself is what counts.
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd.get(), 0) == 0) static_cast<void>(PwriteFull(fd.get(), AsBytes(pid), 0));
  return fd;
}

}  // namespace davit::daemon
