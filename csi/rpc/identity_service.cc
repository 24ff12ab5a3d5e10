#include <grpcpp/grpcpp.h>

#include <utility>

#include "csi/rpc/services.h"
#include "proto/csi.grpc.pb.h"

namespace davit::csi {
namespace {

grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* server, grpc::Status status) {
  auto* reactor = server->DefaultReactor();
  reactor->Finish(std::move(status));
  return reactor;
}

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

class IdentityRpc final : public RpcService {
 public:
  IdentityRpc(std::string name, std::string version, std::function<bool()> ready)
      : service_(std::move(name), std::move(version), std::move(ready)) {}
  grpc::Service& service() override { return service_; }
  void Shutdown() override {}

 private:
  IdentityService service_;
};

}  // namespace

std::unique_ptr<RpcService> MakeIdentityService(std::string name, std::string version,
                                                std::function<bool()> ready) {
  return std::make_unique<IdentityRpc>(std::move(name), std::move(version), std::move(ready));
}

}  // namespace davit::csi
