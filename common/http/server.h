#pragma once
// HTTP server on a unix socket or a loopback port. cpp-httplib stays in server.cc.

#include <functional>
#include <memory>
#include <string>

#include "common/http/message.h"

namespace davit::http {

struct ServerRequest {
  std::string method;
  std::string path;  // decoded, without query
  std::vector<std::pair<std::string, std::string>> query;
  Headers headers;
  std::string body;
  /// The first value of a query parameter, or nothing.
  std::optional<std::string> Query(std::string_view key) const;
};

/// Called from the server's threads, several at a time.
using Handler = std::function<Response(const ServerRequest&)>;

/// What is refused before the handler sees it (too large, malformed, an unknown method), and a
/// reply of 400 and more without a body, gets the body {"code", "message", "request_id"}. Serves
/// from Start() to destruction; requests in progress are finished first (up to 5 s).
class Server {
 public:
  struct Options {
    /// Created with mode 0600; the one of a server that is gone is replaced, that of a live one is
    /// kFailedPrecondition.
    std::string unix_socket;
    std::string address;  // or "127.0.0.1:0"; port 0 picks a free one
    int threads = 8;
    std::size_t max_body_bytes = 8ULL << 20;
  };
  static Result<std::unique_ptr<Server>> Start(const Options& options, Handler handler);
  virtual ~Server() = default;
  /// The port when serving TCP.
  virtual int port() const = 0;
};

}  // namespace davit::http
