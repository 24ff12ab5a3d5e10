#pragma once
// Reads that failed and whose bytes are still missing; internal to rafs/fuse.

#include <atomic>
#include <deque>
#include <functional>
#include <optional>

#include "common/base/sync.h"
#include "rafs/fuse/session.h"

namespace davit::rafs {

/// Thread-safe. What cannot be reached is forgotten when any later read gets bytes from the same
/// place; what arrived damaged only when its own bytes have come.
class ReadFailures {
 public:
  /// Whether the range of a failure can be read now without fetching anything.
  using IsLocal = std::function<bool(const ReadFailure&)>;

  void Add(ReadFailure failure);
  /// A read had to fetch bytes, and got them. Costs one load when nothing has failed.
  void OnFetched();
  /// The latest one that still stands.
  std::optional<ReadFailure> Last(const IsLocal& is_local) const;

 private:
  static constexpr std::size_t kMost = 64;

  std::atomic<bool> any_{false};
  mutable Mutex mutex_;
  mutable std::deque<ReadFailure> failures_ DAVIT_GUARDED_BY(mutex_);  // one a range, oldest first
};

}  // namespace davit::rafs
