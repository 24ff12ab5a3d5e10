#pragma once
// A model of a network link: one bandwidth shared by all connections.

#include <cstdint>

#include "common/base/clock.h"
#include "common/base/sync.h"

namespace davit::testing {

/// Thread-safe.
class Link {
 public:
  explicit Link(std::uint64_t bytes_per_second) : rate_(bytes_per_second) {}
  /// Bytes to send at once; small enough that connections share evenly.
  std::size_t slice() const { return rate_ == 0 ? 1U << 20 : 64U << 10; }
  /// Waits until `bytes` may be on the wire.
  void Pass(std::uint64_t bytes);

 private:
  const std::uint64_t rate_;
  Mutex mutex_;
  TimePoint next_ DAVIT_GUARDED_BY(mutex_){};
};

}  // namespace davit::testing
