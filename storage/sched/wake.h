#pragma once
// Waiting on the injected clock for whichever comes first: a wake-up, the caller's cancellation,
// or a moment. Clock::SleepFor ends at a stop request, so a wake-up is a stop request of a source
// that belongs to one wait; nothing polls, and tests move time by hand.

#include <optional>
#include <stop_token>

#include "common/base/clock.h"
#include "common/base/sync.h"

namespace davit::storage {

/// One thread waits, any may wake it. Members are guarded by the caller's mutex.
class WakeUp {
 public:
  /// Unlocks `mutex`, waits until Wake(), a stop of `stop` or `hurry`, or `until`, locks again.
  /// Returns early only for these reasons; the caller re-checks its condition.
  void Wait(Mutex& mutex, Clock& clock, const std::stop_token& stop, const std::stop_token& hurry,
            std::optional<TimePoint> until) DAVIT_REQUIRES(mutex);
  /// Ends the wait that is going on, if any.
  void Wake();

 private:
  std::optional<std::stop_source> current_;
};

}  // namespace davit::storage
