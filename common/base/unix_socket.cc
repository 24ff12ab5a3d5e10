#include "common/base/unix_socket.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/base/fd.h"

namespace davit {
namespace {

std::string ServerOf(const UniqueFd& fd) {
  ucred peer{};
  socklen_t size = sizeof(peer);
  if (::getsockopt(fd.get(), SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0 || peer.pid <= 0) {
    return "another process";
  }
  return fmt::format("process {}", peer.pid);
}

}  // namespace

Status RemoveStaleSocket(const std::string& path) {
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0) {
    if (errno == ENOENT) return {};
    return Error::FromErrno(errno, "stat " + path);
  }
  if (!S_ISSOCK(st.st_mode)) {
    return Error(Code::kFailedPrecondition, path + " exists and is not a socket")
        .WithHint("remove it or choose another path for the socket");
  }
  sockaddr_un address{};
  if (path.size() >= sizeof(address.sun_path)) {
    return Error(Code::kInvalidArgument, "the socket path " + path + " is too long")
        .WithHint("choose a shorter path");
  }
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Error::FromErrno(errno, "socket");
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int connected =
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof(address));
  // EAGAIN: a server is there whose queue is full.
  if (connected == 0 || errno == EAGAIN) {
    return Error(
               Code::kFailedPrecondition,
               fmt::format("{} serves {}", connected == 0 ? ServerOf(fd) : "another process", path))
        .WithHint("stop it or choose another path for the socket");
  }
  if (errno != ECONNREFUSED && errno != ENOENT) return Error::FromErrno(errno, "connect " + path);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return Error::FromErrno(errno, "remove the stale socket " + path);
  }
  return {};
}

}  // namespace davit
