#pragma once
// Time that tests move by hand.

#include <set>

#include "common/base/clock.h"
#include "common/base/sync.h"

namespace davit::test {

/// Thread-safe. Sleepers wake when Advance() has passed their end, or on a stop request.
class FakeClock final : public Clock {
 public:
  TimePoint Now() const override;
  std::chrono::system_clock::time_point WallNow() const override;
  bool SleepFor(Duration duration, std::stop_token stop) override;

  void Advance(Duration duration);
  /// Moves the wall clock only, as an administrator or NTP does.
  void JumpWall(Duration duration);
  /// Waits (really) until at least `count` threads sleep; false after ten seconds.
  bool WaitForSleepers(int count);
  /// Moves to the earliest end of a sleeper; false when nobody sleeps.
  bool AdvanceToNext();

 private:
  mutable Mutex mutex_;
  std::condition_variable_any changed_;
  TimePoint now_ DAVIT_GUARDED_BY(mutex_){std::chrono::hours(1000)};
  std::chrono::system_clock::time_point wall_ DAVIT_GUARDED_BY(mutex_){
      std::chrono::seconds(1'700'000'000)};
  std::multiset<TimePoint> ends_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::test
