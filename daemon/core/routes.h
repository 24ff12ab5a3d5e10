#pragma once
// The HTTP API of davitd (docs/openapi.yaml): requests to calls of a Service, results to replies.

#include <atomic>
#include <chrono>
#include <string_view>
#include <vector>

#include "common/http/server.h"
#include "daemon/core/service.h"

namespace davit::daemon {

/// Waits for mounts that requests may do at the same time, so that some of the server's threads
/// always answer. Thread-safe.
class WaitSlots {
 public:
  explicit WaitSlots(int slots) : free_(slots) {}
  bool Take();
  void Return();

 private:
  std::atomic<int> free_;
};

struct RouteOptions {
  /// How long a mount or unmount keeps its request waiting before the answer is 202.
  std::chrono::milliseconds wait{10'000};
};

/// One request. Never throws; errors are {"code", "message", "request_id"} bodies. The request has
/// an id, the client's or a new one, that is in the reply and on every log line of its work.
http::Response Handle(Service& service, WaitSlots& slots, const RouteOptions& options,
                      const http::ServerRequest& request);

/// What Handle() answers: the method and the path with {placeholders}, as openapi.yaml has them.
struct Route {
  std::string_view method, path;
};
std::vector<Route> Routes();

}  // namespace davit::daemon
