#include "csi/rpc/server.h"

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cctype>
#include <cerrno>
#include <chrono>
#include <utility>

#include "common/base/log.h"
#include "common/base/unix_socket.h"
#include "csi/rpc/endpoint.h"
#include "csi/rpc/services.h"

namespace davit::csi {
namespace {

using std::chrono::seconds;

// How long calls in flight may take to notice that the server goes away.
constexpr seconds kShutdownPatience{5};

Status CheckDriverName(const std::string& name) {
  const auto letter = [](char c) { return std::isalpha(static_cast<unsigned char>(c)) != 0; };
  const auto allowed = [](char c) {
    return std::isalnum(static_cast<unsigned char>(c)) != 0 || c == '-' || c == '.' || c == '_';
  };
  if (name.size() >= 2 && name.size() <= 63 && letter(name.front()) && letter(name.back()) &&
      std::ranges::all_of(name, allowed)) {
    return {};
  }
  return Error(Code::kInvalidArgument, fmt::format("driver name \"{}\"", name))
      .WithHint("it has 2 to 63 letters, digits, '-', '.', '_', with a letter at both ends");
}

class GrpcServer final : public Server {
 public:
  GrpcServer(const ServerOptions& options, NodeOps& node, std::function<bool()> ready)
      : identity_(
            MakeIdentityService(options.driver_name, options.vendor_version, std::move(ready))),
        node_(MakeNodeService(node)) {}

  ~GrpcServer() override {
    if (server_) server_->Shutdown(std::chrono::system_clock::now() + kShutdownPatience);
    node_->Shutdown();
    server_.reset();
  }

  Status Listen(const std::string& path) {
    grpc::ServerBuilder builder;
    // One process serves one socket; sharing a port means nothing here.
    builder.AddChannelArgument(GRPC_ARG_ALLOW_REUSEPORT, 0);
    builder.SetMaxReceiveMessageSize(4 << 20);
    int bound = 0;
    builder.AddListeningPort("unix:" + path, grpc::InsecureServerCredentials(), &bound);
    builder.RegisterService(&identity_->service());
    builder.RegisterService(&node_->service());
    // The mask is the whole process's, which starts here and makes no other files meanwhile.
    const mode_t before = ::umask(0077);
    server_ = builder.BuildAndStart();
    ::umask(before);
    if (!server_ || bound == 0) {
      return Error(Code::kUnavailable, "cannot listen on " + path)
          .WithHint("the directory must exist and be writable");
    }
    return {};
  }

 private:
  const std::unique_ptr<RpcService> identity_;
  const std::unique_ptr<RpcService> node_;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::Start(const ServerOptions& options, NodeOps& node,
                                              std::function<bool()> ready) {
  DAVIT_TRY(CheckDriverName(options.driver_name));
  DAVIT_TRY_ASSIGN(const std::string path, SocketPathOf(options.endpoint));
  DAVIT_TRY(RemoveStaleSocket(path));
  auto server = std::make_unique<GrpcServer>(options, node, std::move(ready));
  DAVIT_TRY(server->Listen(path));
  log::Info("CSI socket open", {{"path", path}, {"driver", options.driver_name}});
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace davit::csi
