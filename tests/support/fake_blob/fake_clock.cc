#include "tests/support/fake_blob/fake_clock.h"

namespace davit::test {

TimePoint FakeClock::Now() const {
  MutexLock lock(mutex_);
  return now_;
}

std::chrono::system_clock::time_point FakeClock::WallNow() const {
  MutexLock lock(mutex_);
  return wall_;
}

bool FakeClock::SleepFor(Duration duration, std::stop_token stop) {
  MutexLock lock(mutex_);
  const TimePoint end = now_ + duration;
  const auto mine = ends_.insert(end);
  changed_.notify_all();
  changed_.wait(mutex_, stop, [&]() DAVIT_REQUIRES(mutex_) { return now_ >= end; });
  ends_.erase(mine);
  return !stop.stop_requested();
}

void FakeClock::Advance(Duration duration) {
  MutexLock lock(mutex_);
  now_ += duration;
  wall_ += std::chrono::duration_cast<std::chrono::system_clock::duration>(duration);
  changed_.notify_all();
}

void FakeClock::JumpWall(Duration duration) {
  MutexLock lock(mutex_);
  wall_ += std::chrono::duration_cast<std::chrono::system_clock::duration>(duration);
}

bool FakeClock::WaitForSleepers(int count) {
  MutexLock lock(mutex_);
  return changed_.wait_for(mutex_, std::chrono::seconds(10), [&]() DAVIT_REQUIRES(mutex_) {
    return ends_.size() >= static_cast<std::size_t>(count);
  });
}

bool FakeClock::AdvanceToNext() {
  MutexLock lock(mutex_);
  for (const TimePoint end : ends_) {
    if (end <= now_) continue;
    now_ = end;
    changed_.notify_all();
    return true;
  }
  return false;
}

}  // namespace davit::test
