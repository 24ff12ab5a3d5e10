#pragma once
// Time as a dependency, so that tests can move it.

#include <chrono>
#include <stop_token>

namespace davit {

using TimePoint = std::chrono::steady_clock::time_point;
using Duration = std::chrono::steady_clock::duration;

/// Thread-safe. Deadlines and back-off use Now() only: jumps of the wall clock change nothing.
class Clock {
 public:
  virtual ~Clock() = default;
  /// Monotonic.
  virtual TimePoint Now() const = 0;
  /// Wall clock; for timestamps, token expiry dates and last-use times only.
  virtual std::chrono::system_clock::time_point WallNow() const = 0;
  /// Waits; returns false at once when `stop` is requested.
  virtual bool SleepFor(Duration duration, std::stop_token stop) = 0;

  /// The real clock; lives for ever.
  static Clock& Real();
};

}  // namespace davit
