#pragma once
// The bandwidth limit of background transfers.

#include <cstdint>

#include "common/base/clock.h"

namespace davit::storage {

/// Not thread-safe: guarded by its owner. Bytes are taken after they arrived, so the balance may
/// go below zero; the taker then waits until it is paid off.
class TokenBucket {
 public:
  explicit TokenBucket(std::uint64_t bytes_per_second) : rate_(bytes_per_second) {}
  /// 0: no limit.
  void SetRate(std::uint64_t bytes_per_second, TimePoint now);
  std::uint64_t rate() const { return rate_; }
  void Take(std::uint64_t bytes, TimePoint now);
  /// When the balance is back at zero; `now` or earlier when it is not below.
  TimePoint ReadyAt(TimePoint now);

 private:
  void Refill(TimePoint now);
  std::uint64_t rate_;
  double balance_ = 0;
  TimePoint filled_at_{};
};

}  // namespace davit::storage
