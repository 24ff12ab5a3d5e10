#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <stop_token>
#include <utility>

#include "common/base/log.h"
#include "common/base/request_id.h"
#include "common/base/thread_pool.h"
#include "csi/rpc/convert.h"
#include "csi/rpc/services.h"
#include "proto/csi.grpc.pb.h"

namespace davit::csi {
namespace {

/// Bounds how many calls wait, so that a flood of them cannot use up the memory.
class CallQueue {
 public:
  CallQueue(std::string name, std::size_t threads, int limit)
      : limit_(limit), pool_(std::move(name), threads, static_cast<std::size_t>(limit)) {}

  /// False when too many calls wait.
  bool Run(ThreadPool::Task task) {
    if (waiting_.fetch_add(1) >= limit_) {
      waiting_.fetch_sub(1);
      return false;
    }
    const Status queued = pool_.Submit([this, task = std::move(task)]() mutable {
      waiting_.fetch_sub(1);
      task();
    });
    if (!queued.ok()) waiting_.fetch_sub(1);
    return queued.ok();
  }
  void Shutdown() { pool_.Shutdown(); }

 private:
  const int limit_;
  std::atomic<int> waiting_ = 0;
  ThreadPool pool_;
};

/// Answers one call from a pool thread; a client that cancels or goes away stops its work.
class Call final : public grpc::ServerUnaryReactor {
 public:
  using Work = std::function<grpc::Status(const Context&)>;

  static Call* Start(grpc::CallbackServerContext& server, CallQueue& queue, std::string_view name,
                     const std::string& volume, Work work) {
    auto* call = new Call;  // OnDone deletes it
    // The client's name for the call, or one of ours; the reply has it, and every log line.
    const auto given = server.client_metadata().find("x-request-id");
    const std::string id =
        RequestIdOf(given == server.client_metadata().end()
                        ? std::string_view()
                        : std::string_view(given->second.data(), given->second.size()));
    server.AddTrailingMetadata("x-request-id", id);
    const log::Scope scope({{"request", id}, {"call", name}, {"volume", volume}});  // for the task
    Context ctx;
    ctx.stop = call->stop_.get_token();
    const auto left = server.deadline() - std::chrono::system_clock::now();
    // gRPC says "none" with a time that no clock can count to.
    if (left < std::chrono::hours(24)) ctx.deadline = std::chrono::steady_clock::now() + left;
    const bool queued =
        queue.Run([call, ctx, work = std::move(work)] { call->Finish(Guarded(ctx, work)); });
    if (!queued) {
      call->Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many calls wait; try again later"});
    }
    return call;
  }

  void OnCancel() override { stop_.request_stop(); }
  void OnDone() override { delete this; }

 private:
  Call() = default;
  ~Call() override = default;

  static grpc::Status Guarded(const Context& ctx, const Work& work) {
    try {
      return work(ctx);
    } catch (const std::exception& e) {
      return {grpc::StatusCode::INTERNAL, std::string("unexpected failure: ") + e.what()};
    }
  }

  std::stop_source stop_;
};

grpc::ServerUnaryReactor* Answer(grpc::CallbackServerContext* server, grpc::Status status) {
  auto* reactor = server->DefaultReactor();
  reactor->Finish(std::move(status));
  return reactor;
}

// The one place where a failed call is logged. Its text holds no secrets (see Publish).
grpc::Status Logged(const Status& status) {
  if (!status.ok()) {
    log::Warn("CSI call failed",
              {{"code", CodeName(status.error().code())}, {"error", status.error()}});
  }
  return ToGrpc(status);
}

class NodeCalls final : public ::csi::v1::Node::CallbackService {
 public:
  explicit NodeCalls(NodeOps& node) : node_(node) {}
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

void NodeCalls::Shutdown() {
  publish_.Shutdown();
  other_.Shutdown();
}

grpc::ServerUnaryReactor* NodeCalls::NodePublishVolume(
    grpc::CallbackServerContext* server, const ::csi::v1::NodePublishVolumeRequest* request,
    ::csi::v1::NodePublishVolumeResponse*) {
  return Call::Start(*server, publish_, "NodePublishVolume", request->volume_id(),
                     [this, request](const Context& ctx) {
                       return Logged(node_.Publish(ctx, FromProto(*request)));
                     });
}

grpc::ServerUnaryReactor* NodeCalls::NodeUnpublishVolume(
    grpc::CallbackServerContext* server, const ::csi::v1::NodeUnpublishVolumeRequest* request,
    ::csi::v1::NodeUnpublishVolumeResponse*) {
  return Call::Start(
      *server, other_, "NodeUnpublishVolume", request->volume_id(),
      [this, request](const Context& ctx) {
        return Logged(node_.Unpublish(ctx, request->volume_id(), request->target_path()));
      });
}

grpc::ServerUnaryReactor* NodeCalls::NodeGetVolumeStats(
    grpc::CallbackServerContext* server, const ::csi::v1::NodeGetVolumeStatsRequest* request,
    ::csi::v1::NodeGetVolumeStatsResponse* reply) {
  return Call::Start(*server, other_, "NodeGetVolumeStats", request->volume_id(),
                     [this, request, reply](const Context& ctx) {
                       const auto stats =
                           node_.Stats(ctx, request->volume_id(), request->volume_path());
                       if (!stats.ok()) return Logged(stats.error());
                       ToProto(*stats, reply);
                       return grpc::Status::OK;
                     });
}

grpc::ServerUnaryReactor* NodeCalls::NodeGetVolumeHealth(
    grpc::CallbackServerContext* server, const ::csi::v1::NodeGetVolumeHealthRequest* request,
    ::csi::v1::NodeGetVolumeHealthResponse* reply) {
  return Call::Start(*server, other_, "NodeGetVolumeHealth", request->volume_id(),
                     [this, request, reply](const Context& ctx) {
                       const auto health =
                           node_.Health(ctx, request->volume_id(), request->volume_publish_path());
                       if (!health.ok()) return Logged(health.error());
                       reply->mutable_volume_health()->set_volume_id(request->volume_id());
                       ToProto(*health, reply->mutable_volume_health());
                       return grpc::Status::OK;
                     });
}

grpc::ServerUnaryReactor* NodeCalls::NodeGetCapabilities(
    grpc::CallbackServerContext* server, const ::csi::v1::NodeGetCapabilitiesRequest*,
    ::csi::v1::NodeGetCapabilitiesResponse* reply) {
  using Rpc = ::csi::v1::NodeServiceCapability::RPC;
  for (const auto type :
       {Rpc::GET_VOLUME_STATS, Rpc::SINGLE_NODE_MULTI_WRITER, Rpc::GET_VOLUME_HEALTH}) {
    reply->add_capabilities()->mutable_rpc()->set_type(type);
  }
  return Answer(server, grpc::Status::OK);
}

grpc::ServerUnaryReactor* NodeCalls::NodeGetInfo(grpc::CallbackServerContext* server,
                                                 const ::csi::v1::NodeGetInfoRequest*,
                                                 ::csi::v1::NodeGetInfoResponse* reply) {
  reply->set_node_id(node_.NodeId());
  reply->set_max_volumes_per_node(static_cast<std::int64_t>(node_.MaxVolumes()));
  return Answer(server, grpc::Status::OK);
}

class NodeRpc final : public RpcService {
 public:
  explicit NodeRpc(NodeOps& node) : calls_(node) {}
  grpc::Service& service() override { return calls_; }
  void Shutdown() override { calls_.Shutdown(); }

 private:
  NodeCalls calls_;
};

}  // namespace

std::unique_ptr<RpcService> MakeNodeService(NodeOps& node) {
  return std::make_unique<NodeRpc>(node);
}

}  // namespace davit::csi
