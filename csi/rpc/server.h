#pragma once
// The gRPC side of CSI. gRPC and generated headers are included by this folder's .cc files only.

#include <functional>
#include <memory>
#include <string>

#include "csi/core/node_ops.h"

namespace davit::csi {

struct ServerOptions {
  std::string endpoint;  // "unix:///csi/csi.sock" or "unix:/…"; a stale socket is replaced
  std::string driver_name = "csi.davit.dev";
  std::string vendor_version;
};

/// Serves Identity and Node until destruction. `ready` is what Probe reports.
class Server {
 public:
  static Result<std::unique_ptr<Server>> Start(const ServerOptions& options, NodeOps& node,
                                               std::function<bool()> ready);
  virtual ~Server() = default;
};

}  // namespace davit::csi
