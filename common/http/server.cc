#include "common/http/server.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <thread>

#include "common/base/log.h"
#include "common/base/thread_pool.h"

namespace davit::http {

std::optional<std::string> ServerRequest::Query(std::string_view key) const {
  for (const auto& [name, value] : query) {
    if (name == key) return value;
  }
  return std::nullopt;
}

namespace {

/// cpp-httplib's queue of 5 waiting connections is too short for a burst: a full queue of a unix
/// socket refuses the next one.
class DeepQueueServer final : public httplib::Server {
 public:
  void DeepenQueue() { ::listen(svr_sock_, 128); }
};

class HttplibServer final : public Server {
 public:
  HttplibServer(const Options& options, Handler handler)
      : options_(options), handler_(std::move(handler)) {}

  ~HttplibServer() override {
    server_.stop();
    if (thread_.joinable()) thread_.join();
    if (!options_.unix_socket.empty()) ::unlink(options_.unix_socket.c_str());
  }

  Status Start() {
    const auto threads = static_cast<std::size_t>(std::max(1, options_.threads));
    server_.new_task_queue = [threads] { return new httplib::ThreadPool(threads); };
    server_.set_payload_max_length(options_.max_body_bytes);
    // One request a connection: a kept connection would occupy one of few threads while idle.
    server_.set_keep_alive_max_count(1);
    // Nothing can interrupt these waits, so they also bound how long the destructor takes: one
    // second for a connection that has sent nothing, five for half a request or an unread reply.
    server_.set_keep_alive_timeout(1);
    server_.set_read_timeout(5);
    server_.set_write_timeout(5);
    auto route = [this](const httplib::Request& request, httplib::Response& response) {
      Handle(request, response);
    };
    server_.Get(".*", route)
        .Post(".*", route)
        .Put(".*", route)
        .Delete(".*", route)
        .Patch(".*", route)
        .Options(".*", route);
    DAVIT_TRY(options_.unix_socket.empty() ? BindTcp() : BindUnix());
    server_.DeepenQueue();
    thread_ = std::thread([this] {
      SetThreadName("http-accept");
      server_.listen_after_bind();
    });
    // stop() before the loop runs would be lost.
    while (!server_.is_running()) std::this_thread::yield();
    return {};
  }

  int port() const override { return port_; }

 private:
  Status BindUnix() {
    struct stat st{};
    if (::lstat(options_.unix_socket.c_str(), &st) == 0) {
      if (!S_ISSOCK(st.st_mode)) {
        return Error(Code::kAlreadyExists, options_.unix_socket + " exists and is no socket")
            .WithHint("choose another path for the socket");
      }
      ::unlink(options_.unix_socket.c_str());
    }
    if (options_.unix_socket.size() > 107) {
      return Error(Code::kInvalidArgument,
                   fmt::format("socket path {} has more than 107 characters", options_.unix_socket))
          .WithHint("choose a shorter path");
    }
    server_.set_address_family(AF_UNIX);
    // The mode is set before anybody can know the socket: its directory is davit's own.
    const mode_t before = ::umask(0177);
    const bool bound = server_.bind_to_port(options_.unix_socket.c_str(), 80);
    ::umask(before);
    if (!bound) return Error::FromErrno(errno, "listen on " + options_.unix_socket);
    return {};
  }

  Status BindTcp() {
    const std::size_t colon = options_.address.rfind(':');
    int port = 0;
    const char* end = options_.address.data() + options_.address.size();
    if (colon == std::string::npos ||
        std::from_chars(options_.address.data() + colon + 1, end, port).ptr != end) {
      return Error(Code::kInvalidArgument,
                   fmt::format("'{}' is not an address to listen on", options_.address))
          .WithHint("write host:port");
    }
    const std::string host = options_.address.substr(0, colon);
    if (port == 0) {
      port_ = server_.bind_to_any_port(host.c_str());
    } else {
      port_ = server_.bind_to_port(host.c_str(), port) ? port : -1;
    }
    if (port_ <= 0) return Error::FromErrno(errno, "listen on " + options_.address);
    return {};
  }

  static Response HandlerFailed(const std::string& path, const char* why) {
    log::Error("request handler failed", {{"path", path}, {"error", why}});
    return {500,
            {{"Content-Type", "application/json"}},
            R"({"code":"internal","message":"the request handler failed; see the log"})"};
  }

  void Handle(const httplib::Request& in, httplib::Response& out) {
    ServerRequest request;
    request.method = in.method;
    request.path = in.path;
    for (const auto& [name, value] : in.params) request.query.emplace_back(name, value);
    for (const auto& [name, value] : in.headers) request.headers.Add(name, value);
    request.body = in.body;
    Response response;
    try {
      response = handler_(request);
    } catch (const std::exception& error) {
      response = HandlerFailed(request.path, error.what());
    } catch (...) {
      response = HandlerFailed(request.path, "an exception of unknown type");
    }
    out.status = response.status;
    std::string type = "application/json";
    for (const auto& [name, value] : response.headers.items()) {
      if (name == "Content-Type") {
        type = value;
      } else {
        out.set_header(name, value);
      }
    }
    if (!response.body.empty()) out.set_content(response.body, type);
  }

  const Options options_;
  const Handler handler_;
  DeepQueueServer server_;
  std::thread thread_;
  int port_ = 0;
};

}  // namespace

Result<std::unique_ptr<Server>> Server::Start(const Options& options, Handler handler) {
  auto server = std::make_unique<HttplibServer>(options, std::move(handler));
  DAVIT_TRY(server->Start());
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace davit::http
