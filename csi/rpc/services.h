#pragma once
// The CSI services, without gRPC headers.

#include <functional>
#include <memory>
#include <string>

#include "csi/core/node_ops.h"

namespace grpc {
class Service;
}

namespace davit::csi {

/// One gRPC service and what runs its calls. The server must not outlive it.
class RpcService {
 public:
  virtual ~RpcService() = default;
  virtual grpc::Service& service() = 0;
  /// Runs what has been accepted to its end.
  virtual void Shutdown() = 0;
};

/// Identity never waits for anything: a node whose registry or daemon is away still answers.
std::unique_ptr<RpcService> MakeIdentityService(std::string name, std::string version,
                                                std::function<bool()> ready);
/// `node` must outlive it.
std::unique_ptr<RpcService> MakeNodeService(NodeOps& node);

}  // namespace davit::csi
