#pragma once
// What everything inside one cache shares.

#include <atomic>
#include <functional>
#include <memory>

#include "common/base/thread_pool.h"
#include "storage/cache/blob_cache.h"
#include "storage/cache/buffer_pool.h"
#include "storage/cache/fetch_pool.h"
#include "storage/cache/index_db.h"

namespace davit::storage {

struct CacheCounters {
  std::atomic<std::uint64_t> hits{0}, misses{0}, fetched_bytes{0}, deduplicated_bytes{0},
      corrupt_chunks{0}, evicted_bytes{0}, write_errors{0}, lost_chunks{0};
};

struct CacheEnv {
  CacheEnv(const BlobCache::Options& o, CacheFiles& f, Scheduler& s, Clock& c)
      : options(o),
        files(f),
        scheduler(s),
        clock(c),
        buffers(o.max_buffer_bytes),
        fetch({.threads_per_host = o.fetch_threads,
               .quiet_period = o.quiet_period,
               .quiet_window = o.quiet_window}) {}

  const BlobCache::Options options;
  CacheFiles& files;
  Scheduler& scheduler;
  Clock& clock;
  CacheCounters counters;
  BufferPool buffers;             // compressed bytes
  BufferPool scratch{16U << 20};  // decoded bytes; a larger unit has it for itself
  FetchPool fetch;
  std::unique_ptr<ThreadPool> decode;
  std::unique_ptr<IndexDb> index;
  /// Bytes in data files, as far as known; drives the budget.
  std::atomic<std::int64_t> bytes_on_disk{0};
  std::atomic<std::int64_t> background_bytes{0};  // that background flights will add
  std::atomic<std::uint32_t> tick{1};             // coarse time of accesses, for eviction
  /// Wakes the maintenance thread: something was completed, released or has to be evicted.
  std::function<void()> wake_maintenance;
  /// Tries to free disk space for a write that failed; true when it is worth another try.
  std::function<bool(std::uint64_t bytes)> make_room;
  /// Until the file system has said that it shares no blocks between files.
  std::atomic<bool> can_clone{true};
  /// The file system is short of space (maintenance looks).
  std::atomic<bool> disk_is_short{false};

  bool OverBudget() const {
    return options.budget_bytes != 0 &&
           static_cast<double>(bytes_on_disk.load()) >
               static_cast<double>(options.budget_bytes) * options.high_watermark;
  }
  /// False when background work would only push out what readers want: it must never be the
  /// reason for an eviction.
  bool RoomForBackground(std::int64_t more) const {
    if (disk_is_short.load()) return false;
    return options.budget_bytes == 0 ||
           static_cast<double>(bytes_on_disk.load() + background_bytes.load() + more) <
               static_cast<double>(options.budget_bytes) * options.low_watermark;
  }
};

}  // namespace davit::storage
