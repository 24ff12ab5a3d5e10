#include "storage/sched/wake.h"

#include <algorithm>

namespace davit::storage {

void WakeUp::Wait(Mutex& mutex, Clock& clock, const std::stop_token& stop,
                  const std::stop_token& hurry, std::optional<TimePoint> until) {
  // The real clock overflows on durations that mean "for ever".
  constexpr Duration kLongest = std::chrono::hours(1);
  Duration duration = kLongest;
  if (until) duration = std::min<Duration>(kLongest, *until - clock.Now());
  if (duration <= Duration::zero()) return;
  current_.emplace();
  const std::stop_source source = *current_;
  mutex.unlock();
  {
    const auto wake = [&source] { std::stop_source(source).request_stop(); };
    const std::stop_callback on_stop(stop, wake);
    const std::stop_callback on_hurry(hurry, wake);
    clock.SleepFor(duration, source.get_token());
  }
  mutex.lock();
  current_.reset();
}

void WakeUp::Wake() {
  if (current_) current_->request_stop();
}

}  // namespace davit::storage
