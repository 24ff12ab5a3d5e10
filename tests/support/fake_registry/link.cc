#include "tests/support/fake_registry/link.h"

#include <algorithm>
#include <thread>

namespace davit::testing {

void Link::Pass(std::uint64_t bytes) {
  if (rate_ == 0) return;
  TimePoint until;
  {
    MutexLock lock(mutex_);
    // A link that was idle has at most 2 ms of credit: what sleeping too long loses is made up for.
    const TimePoint now = std::chrono::steady_clock::now();
    next_ = std::max(next_, now - std::chrono::milliseconds(2));
    next_ += std::chrono::nanoseconds(bytes * 1'000'000'000ULL / rate_);
    until = next_;
  }
  std::this_thread::sleep_until(until);
}

}  // namespace davit::testing
