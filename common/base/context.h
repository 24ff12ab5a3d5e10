#pragma once
// Who asks, how urgently, until when: passed by const& down every read path.

#include <optional>
#include <stop_token>
#include <string_view>

#include "common/base/clock.h"
#include "common/base/result.h"

namespace davit {

/// Why bytes are wanted, most urgent first. The scheduler orders by it; metrics count by it.
enum class Cause {
  kDemand,     // a reader waits
  kReadAhead,  // a reader is expected to want this soon
  kPrefetch,   // hints of the image or an explicit request
  kBackfill,   // everything else, until the image is complete
};
inline constexpr int kCauseCount = 4;
std::string_view CauseName(Cause cause);

/// Cheap to copy.
struct Context {
  Cause cause = Cause::kDemand;
  std::stop_token stop;
  std::optional<TimePoint> deadline;

  /// kCancelled or kDeadlineExceeded when the caller no longer waits; `what` names the work.
  Status Check(std::string_view what) const;
  /// The same context with the earlier of both deadlines.
  Context WithTimeout(Duration timeout) const;
};

}  // namespace davit
