#include "csi/rpc/services.h"

#include <utility>

#include "common/base/log.h"
#include "csi/rpc/convert.h"

namespace davit::csi {
namespace {

grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* server, grpc::Status status) {
  auto* reactor = server->DefaultReactor();
  reactor->Finish(std::move(status));
  return reactor;
}

// The one place where a failed call is logged. Its text holds no secrets (see Publish).
grpc::Status Logged(std::string_view call, const std::string& volume, const Status& status) {
  if (!status.ok()) {
    log::Warn("CSI call failed", {{"call", call},
                                  {"volume", volume},
                                  {"code", CodeName(status.error().code())},
                                  {"error", status.error()}});
  }
  return ToGrpc(status);
}

}  // namespace

grpc::ServerUnaryReactor* IdentityService::GetPluginInfo(grpc::CallbackServerContext* server,
                                                         const ::csi::v1::GetPluginInfoRequest*,
                                                         ::csi::v1::GetPluginInfoResponse* reply) {
  reply->set_name(name_);
  reply->set_vendor_version(version_);
  return Answer(server, grpc::Status::OK);
}

grpc::ServerUnaryReactor* IdentityService::GetPluginCapabilities(
    grpc::CallbackServerContext* server, const ::csi::v1::GetPluginCapabilitiesRequest*,
    ::csi::v1::GetPluginCapabilitiesResponse*) {
  // No controller service, no topology, no expansion.
  return Answer(server, grpc::Status::OK);
}

grpc::ServerUnaryReactor* IdentityService::Probe(grpc::CallbackServerContext* server,
                                                 const ::csi::v1::ProbeRequest*,
                                                 ::csi::v1::ProbeResponse* reply) {
  reply->mutable_ready()->set_value(ready_());
  return Answer(server, grpc::Status::OK);
}

NodeRpcService::NodeRpcService(NodeOps& node) : node_(node) {}

void NodeRpcService::Shutdown() {
  publish_.Shutdown();
  other_.Shutdown();
}

grpc::ServerUnaryReactor* NodeRpcService::NodePublishVolume(
    grpc::CallbackServerContext* server, const ::csi::v1::NodePublishVolumeRequest* request,
    ::csi::v1::NodePublishVolumeResponse*) {
  return Call::Start(*server, publish_, [this, request](const Context& ctx) {
    return Logged("NodePublishVolume", request->volume_id(),
                  node_.Publish(ctx, FromProto(*request)));
  });
}

grpc::ServerUnaryReactor* NodeRpcService::NodeUnpublishVolume(
    grpc::CallbackServerContext* server, const ::csi::v1::NodeUnpublishVolumeRequest* request,
    ::csi::v1::NodeUnpublishVolumeResponse*) {
  return Call::Start(*server, other_, [this, request](const Context& ctx) {
    return Logged("NodeUnpublishVolume", request->volume_id(),
                  node_.Unpublish(ctx, request->volume_id(), request->target_path()));
  });
}

grpc::ServerUnaryReactor* NodeRpcService::NodeGetVolumeStats(
    grpc::CallbackServerContext* server, const ::csi::v1::NodeGetVolumeStatsRequest* request,
    ::csi::v1::NodeGetVolumeStatsResponse* reply) {
  return Call::Start(*server, other_, [this, request, reply](const Context& ctx) {
    const auto stats = node_.Stats(ctx, request->volume_id(), request->volume_path());
    if (!stats.ok()) return Logged("NodeGetVolumeStats", request->volume_id(), stats.error());
    ToProto(*stats, reply);
    return grpc::Status::OK;
  });
}

grpc::ServerUnaryReactor* NodeRpcService::NodeGetVolumeHealth(
    grpc::CallbackServerContext* server, const ::csi::v1::NodeGetVolumeHealthRequest* request,
    ::csi::v1::NodeGetVolumeHealthResponse* reply) {
  return Call::Start(*server, other_, [this, request, reply](const Context& ctx) {
    const auto health = node_.Health(ctx, request->volume_id(), request->volume_publish_path());
    if (!health.ok()) return Logged("NodeGetVolumeHealth", request->volume_id(), health.error());
    reply->mutable_volume_health()->set_volume_id(request->volume_id());
    ToProto(*health, reply->mutable_volume_health());
    return grpc::Status::OK;
  });
}

grpc::ServerUnaryReactor* NodeRpcService::NodeGetCapabilities(
    grpc::CallbackServerContext* server, const ::csi::v1::NodeGetCapabilitiesRequest*,
    ::csi::v1::NodeGetCapabilitiesResponse* reply) {
  using Rpc = ::csi::v1::NodeServiceCapability::RPC;
  for (const auto type :
       {Rpc::GET_VOLUME_STATS, Rpc::SINGLE_NODE_MULTI_WRITER, Rpc::GET_VOLUME_HEALTH}) {
    reply->add_capabilities()->mutable_rpc()->set_type(type);
  }
  return Answer(server, grpc::Status::OK);
}

grpc::ServerUnaryReactor* NodeRpcService::NodeGetInfo(grpc::CallbackServerContext* server,
                                                      const ::csi::v1::NodeGetInfoRequest*,
                                                      ::csi::v1::NodeGetInfoResponse* reply) {
  reply->set_node_id(node_.NodeId());
  reply->set_max_volumes_per_node(static_cast<std::int64_t>(node_.MaxVolumes()));
  return Answer(server, grpc::Status::OK);
}

}  // namespace davit::csi
