#pragma once
// The CSI services. For csi/rpc only: it shows gRPC headers.

#include <functional>
#include <string>

#include "csi/core/node_ops.h"
#include "csi/rpc/call.h"
#include "proto/csi.grpc.pb.h"

namespace davit::csi {

/// Never waits for anything: a node whose registry or daemon is away still answers.
class IdentityService final : public ::csi::v1::Identity::CallbackService {
 public:
  IdentityService(std::string name, std::string version, std::function<bool()> ready)
      : name_(std::move(name)), version_(std::move(version)), ready_(std::move(ready)) {}

  grpc::ServerUnaryReactor* GetPluginInfo(grpc::CallbackServerContext* server,
                                          const ::csi::v1::GetPluginInfoRequest* request,
                                          ::csi::v1::GetPluginInfoResponse* reply) override;
  grpc::ServerUnaryReactor* GetPluginCapabilities(
      grpc::CallbackServerContext* server, const ::csi::v1::GetPluginCapabilitiesRequest* request,
      ::csi::v1::GetPluginCapabilitiesResponse* reply) override;
  grpc::ServerUnaryReactor* Probe(grpc::CallbackServerContext* server,
                                  const ::csi::v1::ProbeRequest* request,
                                  ::csi::v1::ProbeResponse* reply) override;

 private:
  const std::string name_, version_;
  const std::function<bool()> ready_;
};

class NodeRpcService final : public ::csi::v1::Node::CallbackService {
 public:
  explicit NodeRpcService(NodeOps& node);
  /// Runs what has been accepted to its end.
  void Shutdown();

  grpc::ServerUnaryReactor* NodePublishVolume(grpc::CallbackServerContext* server,
                                              const ::csi::v1::NodePublishVolumeRequest* request,
                                              ::csi::v1::NodePublishVolumeResponse* reply) override;
  grpc::ServerUnaryReactor* NodeUnpublishVolume(
      grpc::CallbackServerContext* server, const ::csi::v1::NodeUnpublishVolumeRequest* request,
      ::csi::v1::NodeUnpublishVolumeResponse* reply) override;
  grpc::ServerUnaryReactor* NodeGetVolumeStats(
      grpc::CallbackServerContext* server, const ::csi::v1::NodeGetVolumeStatsRequest* request,
      ::csi::v1::NodeGetVolumeStatsResponse* reply) override;
  grpc::ServerUnaryReactor* NodeGetVolumeHealth(
      grpc::CallbackServerContext* server, const ::csi::v1::NodeGetVolumeHealthRequest* request,
      ::csi::v1::NodeGetVolumeHealthResponse* reply) override;
  grpc::ServerUnaryReactor* NodeGetCapabilities(
      grpc::CallbackServerContext* server, const ::csi::v1::NodeGetCapabilitiesRequest* request,
      ::csi::v1::NodeGetCapabilitiesResponse* reply) override;
  grpc::ServerUnaryReactor* NodeGetInfo(grpc::CallbackServerContext* server,
                                        const ::csi::v1::NodeGetInfoRequest* request,
                                        ::csi::v1::NodeGetInfoResponse* reply) override;

 private:
  NodeOps& node_;
  // Publishing may wait for long; it must not keep pods from being taken down.
  CallQueue publish_{"csi-publish", 32, 256};
  CallQueue other_{"csi-node", 8, 256};
};

}  // namespace davit::csi
