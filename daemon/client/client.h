#pragma once
// A client of davitd's HTTP API over its unix socket; what davit-csi and the command line use.

#include <memory>
#include <string>
#include <vector>

#include "common/base/context.h"
#include "common/http/client.h"
#include "daemon/api/types.h"

namespace davit::daemon {

/// Thread-safe. Errors are the daemon's own, or kUnavailable naming the socket.
class Client {
 public:
  virtual ~Client() = default;
  virtual Result<api::DaemonInfo> Info(const Context& ctx) = 0;
  /// Idempotent: the same request again gives the same mount; other parameters under the same id
  /// are kAlreadyExists; another call on it in progress is kAborted.
  virtual Result<api::MountInfo> Mount(const Context& ctx, const api::MountRequest& request) = 0;
  /// A missing id is success.
  virtual Status Unmount(const Context& ctx, const std::string& id) = 0;
  virtual Result<api::MountInfo> Get(const Context& ctx, const std::string& id) = 0;
  virtual Result<std::vector<api::MountInfo>> List(const Context& ctx) = 0;
  /// Any other call of the API; the reply's body. `path_and_query` starts with '/'.
  virtual Result<std::string> Call(const Context& ctx, const std::string& method,
                                   const std::string& path_and_query, const std::string& body) = 0;

  /// `http` must outlive it.
  static std::unique_ptr<Client> Create(std::string socket_path, http::Client& http);
};

}  // namespace davit::daemon
