#pragma once
// The one gate for remote reads of a node: order, limits, patience.

#include <chrono>
#include <memory>
#include <stop_token>

#include "common/base/clock.h"
#include "common/base/context.h"
#include "storage/blob/blob.h"

namespace davit::storage {

/// Decides when a range may be fetched, and goes on trying until the caller's patience ends.
/// Thread-safe; one per node. Fetch() blocks the caller's thread, on which the sink runs.
///
/// Order: kDemand before kReadAhead before kPrefetch before kBackfill, first come first served
/// within one cause (the cache asks for as much at a time as may run, image by image: FetchPool).
/// While a demand read or what is read ahead for it waits or runs anywhere on the
/// node, transfers of kPrefetch and kBackfill stand still between two pieces (`max_yield` in all
/// per transfer, so that they end). Patience: kUnavailable and kDeadlineExceeded of the source are
/// retried with exponential back-off and jitter until `patience` has passed since the last
/// progress; a transfer that broke resumes where it stopped. Time in the queue does not count while
/// the host delivers to others. A Retry-After is obeyed, for all reads of that host. After
/// `breaker_failures` consecutive failures of a host only one probe at a time is let through.
class Scheduler {
 public:
  struct Options {
    int max_requests_per_host = 12;
    int max_background_requests = 3;                // of kPrefetch and kBackfill, per host
    std::uint64_t background_bytes_per_second = 0;  // 0: no limit
    std::chrono::milliseconds demand_patience{60'000};
    std::chrono::milliseconds background_patience{600'000};
    std::chrono::milliseconds max_yield{2'000};
    std::chrono::milliseconds backoff_min{100};
    std::chrono::milliseconds backoff_max{5'000};
    int breaker_failures = 5;
  };
  struct Stats {
    std::uint64_t requests[kCauseCount] = {};
    std::uint64_t bytes[kCauseCount] = {};
    std::uint64_t retries = 0;
    std::uint64_t failures = 0;   // given up
    std::uint64_t throttled = 0;  // Retry-After obeyed
    int running = 0;
    int waiting = 0;
  };

  static std::unique_ptr<Scheduler> Create(const Options& options, Clock& clock);
  virtual ~Scheduler() = default;

  /// Streams the range to `sink`, each byte once and in order. Errors: the source's last one, with
  /// the number of tries and how long it was tried; the sink's own at once. When a stop of `hurry`
  /// is requested, somebody waits for what this transfer brings: from then on it counts as kDemand.
  virtual Status Fetch(const Context& ctx, BlobSource& source, ByteRange range, SourceRead& how,
                       const ByteSink& sink, std::stop_token hurry = {}) = 0;
  virtual Stats stats() const = 0;
  virtual void SetBackgroundLimit(std::uint64_t bytes_per_second) = 0;
};

}  // namespace davit::storage
