#pragma once
// Which endpoints have failed lately, and which have asked to be left alone.

#include <map>
#include <optional>
#include <string>

#include "common/base/clock.h"
#include "common/base/sync.h"
#include "common/http/message.h"

namespace davit::registry {

/// By origin. Thread-safe.
class EndpointHealth {
 public:
  explicit EndpointHealth(Clock& clock) : clock_(clock) {}

  /// False while a failed endpoint is skipped (10 s after the first failure, doubled with each
  /// further one up to 5 min) or has asked to be left alone.
  bool Usable(const std::string& origin);
  /// How long the endpoint wants no requests at all (Retry-After, up to
  /// storage::kMaxRetryAfter); nothing when it does not mind.
  std::optional<std::chrono::seconds> Paused(const std::string& origin);
  void Succeeded(const std::string& origin);
  /// Does not count while the endpoint is skipped.
  void Failed(const std::string& origin, const Error& error);
  /// Reads Retry-After of a 429 or 503, RateLimit-Remaining and Warning.
  void Saw(const std::string& origin, const http::Response& reply);

 private:
  struct State {
    int failures = 0;
    TimePoint skip_until{};
    TimePoint pause_until{};
    bool low_reported = false;
    bool warning_reported = false;
  };
  Clock& clock_;
  Mutex mutex_;
  std::map<std::string, State> states_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::registry
