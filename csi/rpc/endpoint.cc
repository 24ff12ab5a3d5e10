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

}  // namespace davit::csi
