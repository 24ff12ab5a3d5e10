#pragma once
// The last things that happened, for /api/v1/events.

#include <deque>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/sync.h"
#include "daemon/api/types.h"

namespace davit::daemon {

/// A ring of events. Thread-safe.
class EventLog {
 public:
  /// `clock` must outlive it.
  EventLog(std::size_t capacity, Clock& clock) : capacity_(capacity), clock_(clock) {}
  void Add(std::string kind, std::string mount, std::string message);
  /// Those with a higher sequence number than `since` that are still known, oldest first.
  std::vector<api::Event> Since(std::uint64_t since) const;

 private:
  const std::size_t capacity_;
  Clock& clock_;
  mutable Mutex mutex_;
  std::uint64_t last_ DAVIT_GUARDED_BY(mutex_) = 0;
  std::deque<api::Event> events_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::daemon
