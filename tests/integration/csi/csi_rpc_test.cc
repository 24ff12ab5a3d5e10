// A real gRPC client against the real server over a unix socket; below it a fake node.
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <future>
#include <thread>

#include "common/base/fd.h"
#include "csi/core/reconciler.h"
#include "csi/rpc/endpoint.h"
#include "csi/rpc/server.h"
#include "proto/csi.grpc.pb.h"
#include "tests/support/csi_fakes/fake_node.h"

namespace davit::csi {
namespace {

namespace v1 = ::csi::v1;
using std::chrono::milliseconds;
using std::chrono::seconds;

class CsiRpc : public ::testing::Test {
 protected:
  CsiRpc() : mounter_(std::make_shared<test::FakeMounter>(table_, dir_.path())), daemon_(table_) {
    node_ = *NodeOps::Create({.node_id = "node-1", .state_dir = dir_.path(), .max_volumes = 7},
                             daemon_, mounter_);
    Serve();
    Connect("localhost");
  }

  void Serve() {
    auto server = Server::Start({.endpoint = Endpoint(), .vendor_version = "1.2.3"}, *node_,
                                [this] { return ready_.load(); });
    ASSERT_TRUE(server.ok()) << server.error().ToString();
    server_ = *std::move(server);
  }
  void Connect(const std::string& authority) {
    grpc::ChannelArguments arguments;
    arguments.SetString(GRPC_ARG_DEFAULT_AUTHORITY, authority);
    // Channels to one address would share a connection, and with it the authority.
    arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
    auto channel =
        grpc::CreateCustomChannel(Endpoint(), grpc::InsecureChannelCredentials(), arguments);
    identity_stub_ = v1::Identity::NewStub(channel);
    node_stub_ = v1::Node::NewStub(channel);
  }
  std::string Socket() const { return dir_.path() + "/csi.sock"; }
  std::string Endpoint() const { return "unix://" + Socket(); }

  static v1::NodePublishVolumeRequest PublishRequest(const std::string& volume) {
    v1::NodePublishVolumeRequest request;
    request.set_volume_id(volume);
    request.set_target_path("/pods/" + volume);
    request.mutable_volume_capability()->mutable_mount();
    request.mutable_volume_capability()->mutable_access_mode()->set_mode(
        v1::VolumeCapability::AccessMode::SINGLE_NODE_WRITER);
    (*request.mutable_volume_context())["image"] = "registry.test/i:1";
    return request;
  }
  grpc::Status Publish(const v1::NodePublishVolumeRequest& request, milliseconds patience) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + patience);
    v1::NodePublishVolumeResponse reply;
    return node_stub_->NodePublishVolume(&context, request, &reply);
  }
  grpc::Status Unpublish(const std::string& volume, const std::string& target) {
    grpc::ClientContext context;
    v1::NodeUnpublishVolumeRequest request;
    request.set_volume_id(volume);
    request.set_target_path(target);
    v1::NodeUnpublishVolumeResponse reply;
    return node_stub_->NodeUnpublishVolume(&context, request, &reply);
  }
  grpc::Status Info(v1::GetPluginInfoResponse* reply) {
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + seconds(20));
    return identity_stub_->GetPluginInfo(&context, v1::GetPluginInfoRequest(), reply);
  }

  TempDir dir_ = *TempDir::Create("davit-csi");
  test::MountTable table_;
  std::shared_ptr<test::FakeMounter> mounter_;
  test::FakeDaemon daemon_;
  std::atomic<bool> ready_ = false;
  std::unique_ptr<NodeOps> node_;
  std::unique_ptr<Server> server_;
  std::unique_ptr<v1::Identity::Stub> identity_stub_;
  std::unique_ptr<v1::Node::Stub> node_stub_;
};

TEST_F(CsiRpc, Identity) {
  v1::GetPluginInfoResponse info;
  ASSERT_TRUE(Info(&info).ok());
  EXPECT_EQ(info.name(), "csi.davit.dev");
  EXPECT_EQ(info.vendor_version(), "1.2.3");
  grpc::ClientContext context;
  v1::GetPluginCapabilitiesResponse capabilities;
  ASSERT_TRUE(
      identity_stub_
          ->GetPluginCapabilities(&context, v1::GetPluginCapabilitiesRequest(), &capabilities)
          .ok());
  EXPECT_EQ(capabilities.capabilities_size(), 0);
  for (const bool ready : {false, true}) {
    ready_ = ready;
    grpc::ClientContext probe_context;
    v1::ProbeResponse probe;
    ASSERT_TRUE(identity_stub_->Probe(&probe_context, v1::ProbeRequest(), &probe).ok());
    ASSERT_TRUE(probe.has_ready());
    EXPECT_EQ(probe.ready().value(), ready);
  }
}

TEST_F(CsiRpc, NodeInfoAndCapabilities) {
  grpc::ClientContext info_context;
  v1::NodeGetInfoResponse info;
  ASSERT_TRUE(node_stub_->NodeGetInfo(&info_context, v1::NodeGetInfoRequest(), &info).ok());
  EXPECT_EQ(info.node_id(), "node-1");
  EXPECT_EQ(info.max_volumes_per_node(), 7);
  EXPECT_FALSE(info.has_accessible_topology());
  grpc::ClientContext context;
  v1::NodeGetCapabilitiesResponse reply;
  ASSERT_TRUE(
      node_stub_->NodeGetCapabilities(&context, v1::NodeGetCapabilitiesRequest(), &reply).ok());
  std::set<int> types;
  for (const auto& capability : reply.capabilities()) types.insert(capability.rpc().type());
  using Rpc = v1::NodeServiceCapability::RPC;
  EXPECT_EQ(types, (std::set<int>{Rpc::GET_VOLUME_STATS, Rpc::SINGLE_NODE_MULTI_WRITER,
                                  Rpc::GET_VOLUME_HEALTH}));
}

TEST_F(CsiRpc, PublishStatsHealthUnpublish) {
  ASSERT_TRUE(Publish(PublishRequest("v1"), seconds(20)).ok());
  grpc::ClientContext stats_context;
  v1::NodeGetVolumeStatsRequest stats_request;
  stats_request.set_volume_id("v1");
  stats_request.set_volume_path("/pods/v1");
  v1::NodeGetVolumeStatsResponse stats;
  ASSERT_TRUE(node_stub_->NodeGetVolumeStats(&stats_context, stats_request, &stats).ok());
  ASSERT_EQ(stats.usage_size(), 2);
  EXPECT_EQ(stats.usage(0).unit(), v1::VolumeUsage::BYTES);
  EXPECT_EQ(stats.usage(0).total(), 1'000'000);
  EXPECT_EQ(stats.usage(0).used(), 1'000'000);
  EXPECT_EQ(stats.usage(0).available(), 0);
  EXPECT_EQ(stats.usage(1).unit(), v1::VolumeUsage::INODES);
  EXPECT_EQ(stats.usage(1).total(), 38000);
  for (const bool broken : {false, true}) {
    if (broken) table_.RemoveTop("/pods/v1");
    grpc::ClientContext context;
    v1::NodeGetVolumeHealthRequest request;
    request.set_volume_id("v1");
    v1::NodeGetVolumeHealthResponse health;
    ASSERT_TRUE(node_stub_->NodeGetVolumeHealth(&context, request, &health).ok());
    EXPECT_EQ(health.volume_health().volume_id(), "v1");
    ASSERT_EQ(health.volume_health().health_statuses_size(), broken ? 1 : 0);
    if (broken) {
      EXPECT_EQ(health.volume_health().health_statuses(0).status(), v1::INACCESSIBLE);
      EXPECT_EQ(health.volume_health().health_statuses(0).reason(), "TargetNotMounted");
    }
  }
  ASSERT_TRUE(Unpublish("v1", "/pods/v1").ok());
  EXPECT_TRUE(table_.List().empty());
}

TEST_F(CsiRpc, EveryCodeHasItsNameInGrpc) {
  const std::vector<std::pair<Code, grpc::StatusCode>> codes = {
      {Code::kInvalidArgument, grpc::INVALID_ARGUMENT},
      {Code::kNotFound, grpc::NOT_FOUND},
      {Code::kAlreadyExists, grpc::ALREADY_EXISTS},
      {Code::kPermissionDenied, grpc::PERMISSION_DENIED},
      {Code::kUnauthenticated, grpc::UNAUTHENTICATED},
      {Code::kUnavailable, grpc::UNAVAILABLE},
      {Code::kDeadlineExceeded, grpc::DEADLINE_EXCEEDED},
      {Code::kResourceExhausted, grpc::RESOURCE_EXHAUSTED},
      {Code::kCancelled, grpc::CANCELLED},
      {Code::kDataLoss, grpc::DATA_LOSS},
      {Code::kUnsupported, grpc::FAILED_PRECONDITION},
      {Code::kFailedPrecondition, grpc::FAILED_PRECONDITION},
      {Code::kAborted, grpc::ABORTED},
      {Code::kInternal, grpc::INTERNAL}};
  int number = 0;
  for (const auto& [code, expected] : codes) {
    daemon_.on_mount = [failure = code](const Context&,
                                        const daemon::api::MountRequest&) -> Status {
      return Error(failure, "why").WithHint("next step");
    };
    const std::string volume = "code" + std::to_string(number++);
    const grpc::Status status = Publish(PublishRequest(volume), seconds(20));
    EXPECT_EQ(status.error_code(), expected) << CodeName(code);
    EXPECT_EQ(status.error_message(), "why (next step)");
    EXPECT_TRUE(status.error_details().empty());
  }
}

TEST_F(CsiRpc, LongTextsAreCutBetweenCharacters) {
  daemon_.on_mount = [](const Context&, const daemon::api::MountRequest&) -> Status {
    std::string text = "x";
    for (int i = 0; i < 5000; ++i) text += "\xc3\xa9";
    return Error(Code::kInternal, text);
  };
  const grpc::Status status = Publish(PublishRequest("v"), seconds(20));
  EXPECT_EQ(status.error_code(), grpc::INTERNAL);
  EXPECT_LT(status.error_message().size(), 2100U);
  EXPECT_TRUE(status.error_message().ends_with("\xc3\xa9..."));
}

TEST_F(CsiRpc, MissingArguments) {
  auto request = PublishRequest("v");
  request.clear_volume_capability();
  EXPECT_EQ(Publish(request, seconds(20)).error_code(), grpc::INVALID_ARGUMENT);
  // A capability that says nothing.
  request.mutable_volume_capability();
  EXPECT_EQ(Publish(request, seconds(20)).error_code(), grpc::INVALID_ARGUMENT);
  request = PublishRequest("v");
  request.mutable_volume_capability()->mutable_block();
  EXPECT_EQ(Publish(request, seconds(20)).error_code(), grpc::INVALID_ARGUMENT);
  request = PublishRequest("v");
  request.mutable_volume_capability()->mutable_access_mode()->set_mode(
      static_cast<v1::VolumeCapability::AccessMode::Mode>(99));
  EXPECT_EQ(Publish(request, seconds(20)).error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(Unpublish("", "/pods/v").error_code(), grpc::INVALID_ARGUMENT);
  EXPECT_EQ(Unpublish("v", "").error_code(), grpc::INVALID_ARGUMENT);
}

TEST_F(CsiRpc, TheRestIsUnimplemented) {
  const auto code = [&](auto method, const auto& request, auto reply) {
    grpc::ClientContext context;
    return (node_stub_.get()->*method)(&context, request, &reply).error_code();
  };
  EXPECT_EQ(code(&v1::Node::Stub::NodeStageVolume, v1::NodeStageVolumeRequest(),
                 v1::NodeStageVolumeResponse()),
            grpc::UNIMPLEMENTED);
  EXPECT_EQ(code(&v1::Node::Stub::NodeUnstageVolume, v1::NodeUnstageVolumeRequest(),
                 v1::NodeUnstageVolumeResponse()),
            grpc::UNIMPLEMENTED);
  EXPECT_EQ(code(&v1::Node::Stub::NodeExpandVolume, v1::NodeExpandVolumeRequest(),
                 v1::NodeExpandVolumeResponse()),
            grpc::UNIMPLEMENTED);
  EXPECT_EQ(code(&v1::Node::Stub::NodeGetStorageHealth, v1::NodeGetStorageHealthRequest(),
                 v1::NodeGetStorageHealthResponse()),
            grpc::UNIMPLEMENTED);
  grpc::ClientContext context;
  v1::ControllerGetCapabilitiesResponse reply;
  auto controller =
      v1::Controller::NewStub(grpc::CreateChannel(Endpoint(), grpc::InsecureChannelCredentials()));
  EXPECT_EQ(
      controller
          ->ControllerGetCapabilities(&context, v1::ControllerGetCapabilitiesRequest(), &reply)
          .error_code(),
      grpc::UNIMPLEMENTED);
}

// Kubelets before 1.26 send the socket's path; others anything.
TEST_F(CsiRpc, AnyAuthorityIsAccepted) {
  for (const std::string authority :
       {"localhost", "/var/lib/kubelet/plugins/csi.davit.dev/csi.sock",
        "%2Fvar%2Flib%2Fkubelet%2Fcsi.sock", "", "unix:///csi/csi.sock", "a b", "[::1]:0"}) {
    Connect(authority);
    v1::GetPluginInfoResponse info;
    const grpc::Status status = Info(&info);
    EXPECT_TRUE(status.ok()) << authority << ": " << status.error_message();
  }
}

TEST_F(CsiRpc, TheDeadlineIsAnsweredBeforeItPasses) {
  std::promise<void> release;
  auto released = release.get_future().share();
  daemon_.on_mount = [released](const Context& ctx, const daemon::api::MountRequest&) -> Status {
    while (released.wait_for(milliseconds(5)) != std::future_status::ready) {
      DAVIT_TRY(ctx.Check("mount"));
    }
    return {};
  };
  const grpc::Status late = Publish(PublishRequest("v1"), milliseconds(1000));
  EXPECT_EQ(late.error_code(), grpc::DEADLINE_EXCEEDED);
  // The server's text, not the client's own.
  EXPECT_NE(late.error_message().find("is not ready after"), std::string::npos)
      << late.error_message();
  release.set_value();
  EXPECT_TRUE(Publish(PublishRequest("v1"), seconds(20)).ok());
}

TEST_F(CsiRpc, AClientThatGoesAwayStopsItsCall) {
  std::promise<void> entered;
  std::atomic<bool> once = false;
  std::promise<void> release;
  auto released = release.get_future().share();
  daemon_.on_mount = [&](const Context&, const daemon::api::MountRequest&) -> Status {
    if (!once.exchange(true)) entered.set_value();
    released.wait();
    return {};
  };
  grpc::ClientContext context;
  std::thread client([&] {
    v1::NodePublishVolumeResponse reply;
    EXPECT_EQ(node_stub_->NodePublishVolume(&context, PublishRequest("v1"), &reply).error_code(),
              grpc::CANCELLED);
  });
  entered.get_future().wait();
  context.TryCancel();
  client.join();
  // The call has let go of the volume: the next one is not ABORTED for long, but joins.
  grpc::Status status;
  for (int i = 0; i < 1000; ++i) {
    status = Publish(PublishRequest("v1"), milliseconds(100));
    if (status.error_code() != grpc::ABORTED) break;
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_EQ(status.error_code(), grpc::DEADLINE_EXCEEDED);
  release.set_value();
  for (int i = 0; i < 1000 && !(status = Publish(PublishRequest("v1"), seconds(20))).ok(); ++i) {
    std::this_thread::sleep_for(milliseconds(5));
  }
  EXPECT_TRUE(status.ok()) << status.error_message();
}

TEST_F(CsiRpc, WaitingPublishesDoNotHoldUpTheRest) {
  std::promise<void> release;
  auto released = release.get_future().share();
  daemon_.on_mount = [released](const Context&, const daemon::api::MountRequest&) -> Status {
    released.wait();
    return {};
  };
  std::vector<std::thread> clients;
  for (int i = 0; i < 48; ++i) {  // more than there are threads for it
    clients.emplace_back([&, i] {
      EXPECT_TRUE(Publish(PublishRequest("v" + std::to_string(i)), seconds(60)).ok());
    });
  }
  while (daemon_.requests().size() < 32) std::this_thread::sleep_for(milliseconds(1));
  v1::GetPluginInfoResponse info;
  EXPECT_TRUE(Info(&info).ok());
  EXPECT_TRUE(Unpublish("other", "/pods/other").ok());
  release.set_value();
  for (auto& client : clients) client.join();
  EXPECT_EQ(daemon_.List(Context{})->size(), 48U);
}

TEST_F(CsiRpc, TheSocketIsPrivateAndAStaleOneIsReplaced) {
  struct stat st{};
  ASSERT_EQ(::stat(Socket().c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 0777, 0700U);
  // Another process on the same path is refused while this one serves.
  auto second = Server::Start({.endpoint = Endpoint()}, *node_, [] { return true; });
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.error().code(), Code::kFailedPrecondition);
  v1::GetPluginInfoResponse info;
  EXPECT_TRUE(Info(&info).ok());
  server_.reset();
  // What a killed server leaves: a socket that nobody listens on.
  const UniqueFd fd(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  std::memcpy(address.sun_path, Socket().data(), Socket().size());
  ::unlink(Socket().c_str());
  ASSERT_EQ(::bind(fd.get(), reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
  Serve();
  Connect("localhost");
  EXPECT_TRUE(Info(&info).ok());
}

TEST_F(CsiRpc, TheSocketGoesWithTheServer) {
  server_.reset();
  EXPECT_NE(::access(Socket().c_str(), F_OK), 0);
}

TEST_F(CsiRpc, RecoverySetsReady) {
  daemon_.away = true;
  Reconciler reconciler({.interval = seconds(3600), .retry = milliseconds(1)}, *node_);
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_FALSE(reconciler.ready());
  daemon_.away = false;
  for (int i = 0; i < 5000 && !reconciler.ready(); ++i) {
    std::this_thread::sleep_for(milliseconds(1));
  }
  EXPECT_TRUE(reconciler.ready());
}

TEST(Endpoint, FormsAndLimits) {
  EXPECT_EQ(*SocketPathOf("unix:///csi/csi.sock"), "/csi/csi.sock");
  EXPECT_EQ(*SocketPathOf("unix:/csi/csi.sock"), "/csi/csi.sock");
  EXPECT_EQ(*SocketPathOf("/csi/csi.sock"), "/csi/csi.sock");
  for (const std::string bad :
       {"", "/", "unix://", "unix://csi.sock", "csi.sock", "tcp://127.0.0.1:1", "unix:///a/"}) {
    EXPECT_FALSE(SocketPathOf(bad).ok()) << bad;
  }
  EXPECT_TRUE(SocketPathOf("unix:///" + std::string(106, 'a')).ok());
  const auto longer = SocketPathOf("unix:///" + std::string(107, 'a'));
  ASSERT_FALSE(longer.ok());
  EXPECT_NE(longer.error().message().find("108 bytes; the system allows 107"), std::string::npos)
      << longer.error().message();
}

TEST(ServerStart, RefusesDriverNamesThatCsiForbids) {
  test::MountTable table;
  test::FakeDaemon daemon(table);
  auto dir = *TempDir::Create("davit-csi");
  auto node = *NodeOps::Create({.node_id = "n", .state_dir = dir.path()}, daemon,
                               std::make_shared<test::FakeMounter>(table, dir.path()));
  for (const std::string& name : {std::string("a"), std::string("csi.davit.1"), std::string("1.a"),
                                  std::string("a b"), std::string(64, 'a'), std::string()}) {
    const auto server = Server::Start({.endpoint = dir.path() + "/s", .driver_name = name}, *node,
                                      [] { return true; });
    ASSERT_FALSE(server.ok()) << name;
    EXPECT_EQ(server.error().code(), Code::kInvalidArgument);
  }
}

}  // namespace
}  // namespace davit::csi
