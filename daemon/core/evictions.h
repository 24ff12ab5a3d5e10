#pragma once
// Space that is freed on request: the disk may be slow, and no request waits for it for long.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>

#include "common/base/clock.h"
#include "common/base/sync.h"
#include "common/base/thread_pool.h"
#include "daemon/core/event_log.h"

namespace davit::daemon {

/// Thread-safe. One at a time, on a thread of its own.
class Evictions {
 public:
  /// Frees at least so many bytes if it can; the bytes freed.
  using Evict = std::function<Result<std::uint64_t>(std::uint64_t bytes)>;
  /// `events` must outlive it.
  Evictions(Evict evict, EventLog& events);
  /// Waits for the one that runs.
  ~Evictions() = default;

  /// The bytes freed; nothing when it was not done after `wait`: it goes on, and an event tells of
  /// its end. kAborted while another one runs.
  Result<std::optional<std::uint64_t>> Run(std::uint64_t bytes, Duration wait);

 private:
  struct Operation {
    std::optional<Result<std::uint64_t>> result;
    bool late = false;  // nobody waits any more
  };
  void Work(const std::shared_ptr<Operation>& operation, std::uint64_t bytes);

  const Evict evict_;
  EventLog& events_;
  Mutex mutex_;
  CondVar changed_;
  bool running_ DAVIT_GUARDED_BY(mutex_) = false;
  ThreadPool pool_{"evict", 1, 1};  // last: its end waits for what uses the others
};

}  // namespace davit::daemon
