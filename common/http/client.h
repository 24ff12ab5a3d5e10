#pragma once
// Blocking HTTP client. libcurl stays in client.cc.

#include <functional>
#include <memory>

#include "common/base/context.h"
#include "common/http/message.h"

namespace davit::http {

/// Thread-safe. Connections are kept and re-used (most recently used first); HTTP/2 is used where
/// TLS negotiates it. Redirects are NOT followed: the caller decides where credentials go. A reply
/// of any status is a Response; an Error means that there was no complete reply: kUnavailable
/// (refused, reset, DNS, body cut short), kDeadlineExceeded (stall, context), kCancelled (context),
/// kUnauthenticated (TLS trust). Cancelling a context ends the call within milliseconds.
class Client {
 public:
  /// Sees status and headers before any body byte; an error ends the transfer and is returned.
  using OnHeaders = std::function<Status(int status, const Headers&)>;
  /// Called on the caller's thread with each piece of the body; may block (the peer then waits).
  using OnData = std::function<Status(Bytes)>;

  virtual ~Client() = default;
  /// Whole reply in memory; kResourceExhausted above request.max_response_bytes.
  virtual Result<Response> Do(const Context& ctx, const Request& request) = 0;
  /// The body goes to `on_data`; the Response's body is empty.
  virtual Result<Response> Stream(const Context& ctx, const Request& request,
                                  const OnHeaders& on_headers, const OnData& on_data) = 0;

  struct Options {
    std::string user_agent = "davit";
    int max_idle_connections = 32;
  };
  static std::unique_ptr<Client> Create(const Options& options);
};

}  // namespace davit::http
