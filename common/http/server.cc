#include "common/http/server.h"

#include <fmt/format.h>
#include <httplib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <charconv>
#include <thread>

#include "common/base/log.h"
#include "common/base/request_id.h"
#include "common/base/thread_pool.h"
#include "common/base/unix_socket.h"

namespace davit::http {

std::optional<std::string> ServerRequest::Query(std::string_view key) const {
  for (const auto& [name, value] : query) {
    if (name == key) return value;
  }
  return std::nullopt;
}

namespace {

struct Refusal {
  std::string_view code, message;
};
Refusal RefusalOf(int status) {
  switch (status) {
    case 404:
      return {"not_found", "there is nothing at this path (docs/openapi.yaml lists the paths)"};
    case 405:
      return {"unsupported", "this method is not possible here (docs/openapi.yaml lists them)"};
    case 408:
      return {"deadline_exceeded", "the request did not arrive in time (send it in one piece)"};
    case 413:
      return {"invalid_argument", "the request body is too large"};
    case 414:
      return {"invalid_argument", "the path and query are too long (put long values in the body)"};
    case 415:
      return {"invalid_argument", "the body's encoding is not known (send plain JSON)"};
    case 416:
      return {"invalid_argument", "ranges are not served (leave the Range header out)"};
    default:
      break;
  }
  if (status >= 500) return {"internal", "the request could not be handled; see the log"};
  return {"invalid_argument", "this is no well-formed HTTP request"};
}

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
    if (bound_) ::unlink(options_.unix_socket.c_str());
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
    server_.set_error_handler([this](const httplib::Request& request, httplib::Response& response) {
      Explain(request, response);
    });
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
    if (options_.unix_socket.size() > 107) {
      return Error(Code::kInvalidArgument,
                   fmt::format("socket path {} has more than 107 characters", options_.unix_socket))
          .WithHint("choose a shorter path");
    }
    DAVIT_TRY(RemoveStaleSocket(options_.unix_socket));
    server_.set_address_family(AF_UNIX);
    // The mode is set before anybody can know the socket: its directory is davit's own.
    const mode_t before = ::umask(0177);
    const bool bound = server_.bind_to_port(options_.unix_socket.c_str(), 80);
    ::umask(before);
    if (!bound) return Error::FromErrno(errno, "listen on " + options_.unix_socket);
    bound_ = true;
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

  // What httplib answers by itself has a status and nothing else.
  void Explain(const httplib::Request& request, httplib::Response& response) const {
    if (!response.body.empty()) return;
    const std::string id = RequestIdOf(request.get_header_value(std::string(kRequestIdHeader)));
    const Refusal why = RefusalOf(response.status);
    std::string message(why.message);
    if (response.status == 413) {
      message = fmt::format("the request body has more than {} bytes", options_.max_body_bytes);
    }
    // No text of the request is in it, so that there is nothing to escape.
    response.set_content(
        fmt::format(R"({{"code":"{}","message":"{}","request_id":"{}"}})", why.code, message, id),
        "application/json");
    if (!response.has_header(std::string(kRequestIdHeader))) {
      response.set_header(std::string(kRequestIdHeader), id);
    }
    log::Debug("request refused by the HTTP server",
               {{"request", id}, {"status", response.status}, {"error", message}});
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
  bool bound_ = false;  // the unix socket is ours
};

}  // namespace

Result<std::unique_ptr<Server>> Server::Start(const Options& options, Handler handler) {
  auto server = std::make_unique<HttplibServer>(options, std::move(handler));
  DAVIT_TRY(server->Start());
  return std::unique_ptr<Server>(std::move(server));
}

}  // namespace davit::http
