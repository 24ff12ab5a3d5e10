#include "storage/sched/token_bucket.h"

#include <algorithm>

namespace davit::storage {
namespace {
// Idle time is saved up for at most this long: a burst must not fill the link for seconds.
constexpr double kBurstSeconds = 0.1;
}  // namespace

void TokenBucket::Refill(TimePoint now) {
  const double rate = static_cast<double>(rate_);
  if (filled_at_ != TimePoint{}) {
    const double seconds = std::chrono::duration<double>(now - filled_at_).count();
    balance_ = std::min(balance_ + seconds * rate, rate * kBurstSeconds);
  }
  filled_at_ = now;
}

void TokenBucket::SetRate(std::uint64_t bytes_per_second, TimePoint now) {
  Refill(now);
  rate_ = bytes_per_second;
  balance_ = 0;
}

void TokenBucket::Take(std::uint64_t bytes, TimePoint now) {
  if (rate_ == 0) return;
  Refill(now);
  balance_ -= static_cast<double>(bytes);
}

TimePoint TokenBucket::ReadyAt(TimePoint now) {
  if (rate_ == 0) return now;
  Refill(now);
  if (balance_ >= 0) return now;
  const std::chrono::duration<double> wait(-balance_ / static_cast<double>(rate_));
  return now + std::chrono::ceil<Duration>(wait);
}

}  // namespace davit::storage
