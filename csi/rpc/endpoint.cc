#include "csi/rpc/endpoint.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "common/base/fd.h"

namespace davit::csi {

Result<std::string> SocketPathOf(const std::string& endpoint) {
  std::string path = endpoint;
  if (path.starts_with("unix://")) {
    path = path.substr(7);
  } else if (path.starts_with("unix:")) {
    path = path.substr(5);
  }
  if (path.size() < 2 || path[0] != '/' || path.back() == '/' ||
      path.find('\0') != std::string::npos) {
    return Error(Code::kInvalidArgument,
                 fmt::format("endpoint \"{}\" is no path of a unix socket", endpoint))
        .WithHint("write unix:///csi/csi.sock");
  }
  constexpr std::size_t kLimit = sizeof(sockaddr_un::sun_path) - 1;
  if (path.size() > kLimit) {
    return Error(Code::kInvalidArgument,
                 fmt::format("the socket path {} has {} bytes; the system allows {}", path,
                             path.size(), kLimit))
        .WithHint("use a shorter directory, or a symlink to it");
  }
  return path;
}

Status RemoveStaleSocket(const std::string& path) {
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0) {
    if (errno == ENOENT) return {};
    return Error::FromErrno(errno, "stat " + path);
  }
  if (!S_ISSOCK(st.st_mode)) {
    return Error(Code::kFailedPrecondition, path + " exists and is not a socket")
        .WithHint("remove it or choose another --endpoint");
  }
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!fd) return Error::FromErrno(errno, "socket");
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, path.data(), path.size());
  const int connected =
      ::connect(fd.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address);
  // EAGAIN: a server is there whose queue is full.
  if (connected == 0 || errno == EAGAIN) {
    return Error(Code::kFailedPrecondition, "another process serves " + path)
        .WithHint("stop it or choose another --endpoint");
  }
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return Error::FromErrno(errno, "remove the stale socket " + path);
  }
  return {};
}

}  // namespace davit::csi
