#pragma once
// The node's cache: one verified, uncompressed copy of every blob, filled by what is read.
//
// Directory layout (owned by one process; a lock file says by whom):
//   version, lock, cache.db (SQLite: blobs, sizes, last use, chunk digests)
//   blobs/<id>/data   sparse file, every chunk at its uncompressed offset
//   blobs/<id>/ready  one durable bit per chunk, set only after the chunk is on disk
// A crash at any moment loses work, never correctness.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/context.h"
#include "storage/blob/blob.h"
#include "storage/cache/cache_files.h"
#include "storage/sched/scheduler.h"

namespace davit::storage {

/// What has to be known to fill a blob.
struct BlobSpec {
  BlobId id;
  std::shared_ptr<BlobSource> source;
  /// Called once, when the first byte of the blob is wanted; may read from `source`.
  std::function<Result<std::shared_ptr<const BlobMap>>(const Context&)> load_map;
  /// Uncompressed size as the image's metadata says; load_map must agree.
  std::uint64_t uncompressed_size = 0;
  std::string image;  // whose part it is, for log lines
};

struct BlobProgress {
  std::uint64_t bytes_ready = 0;
  std::uint64_t bytes_total = 0;
  bool complete = false;
};

/// When a fill begins.
enum class FillStart {
  kWhenQuiet,  // not before the readers that follow a mount are served; see quiet_period
  kAtOnce,     // somebody waits until everything is here
};

/// Told how a fill ended; see BlobCache::Fill().
using FillEnd = std::function<void(const Status&)>;

/// One blob in use; keeps it from being forgotten (its chunks may still be evicted and fetched
/// again). Thread-safe.
class CachedBlob {
 public:
  virtual ~CachedBlob() = default;
  virtual const BlobId& id() const = 0;
  virtual std::uint64_t size() const = 0;
  /// Makes the range local and verified; returns when it is. Ranges past the end are clipped.
  /// Errors: kUnavailable, kDeadlineExceeded, kDataLoss (names blob and chunk), kResourceExhausted
  /// (no space), kCancelled. An error concerns this call only: the next one tries again.
  virtual Status Ensure(const Context& ctx, ByteRange range) = 0;
  /// Ensure and copy; short only at the end of the blob. Padding between chunks reads as zeros.
  virtual Result<std::size_t> Read(const Context& ctx, std::uint64_t offset, MutableBytes out) = 0;
  /// True when the range can be read now without waiting; one load per chunk, no lock.
  virtual bool IsReady(ByteRange range) const = 0;
  /// While the result lives, nothing of this blob is evicted. Nothing when the range is not ready.
  virtual std::shared_ptr<void> PinReady(ByteRange /*range*/) { return nullptr; }
  /// The data file. Ready ranges of it may be read (splice, loop devices) only while a pin of
  /// PinReady() that covers them is held: without one, eviction punches holes that read as zeros.
  virtual int data_fd() const = 0;
  virtual const std::string& data_path() const = 0;
  virtual BlobProgress progress() const = 0;
};

/// Thread-safe; one per cache directory. Blobs in use must be released before it is destroyed.
class BlobCache {
 public:
  struct Options {
    std::string directory;
    std::uint64_t budget_bytes = 0;                 // of data files; 0: no limit but the disk's
    double high_watermark = 0.95;                   // of the budget: eviction starts
    double low_watermark = 0.85;                    // and stops
    std::uint64_t reserve_free_bytes = 1ULL << 30;  // of the file system, left to others
    int fetch_threads = 12;
    int decode_threads = 0;                        // 0: one per CPU
    std::uint64_t max_buffer_bytes = 24ULL << 20;  // in flight between network and disk
    std::uint64_t max_request_bytes = 8ULL << 20;
    // The reads that follow a mount are worth more than a head start of the fill: within
    // `quiet_window` after it was asked for, a request of it begins only when no reader has waited
    // for the network for `quiet_period`.
    std::chrono::milliseconds quiet_period{0};
    std::chrono::milliseconds quiet_window{3000};
    std::uint64_t merge_gap_bytes = 64ULL
                                    << 10;  // fetch up to this much unwanted data to save a request
    std::chrono::milliseconds flush_interval{1000};  // ready bits are made durable this often
    bool verify_on_start = false;                    // compare every chunk that is said to be ready
  };
  struct Stats {
    std::uint64_t bytes_on_disk = 0;
    std::uint64_t blobs = 0;
    std::uint64_t hits = 0, misses = 0;    // chunks
    std::uint64_t fetched_bytes = 0;       // compressed
    std::uint64_t deduplicated_bytes = 0;  // uncompressed, copied from another blob
    std::uint64_t corrupt_chunks = 0;      // arrived damaged
    std::uint64_t evicted_bytes = 0;
    std::uint64_t write_errors = 0;
    std::uint64_t lost_chunks = 0;  // were here and could not be read; fetched anew when wanted
  };
  struct BlobInfo {
    BlobId id;
    BlobProgress progress;
    bool in_use = false;
    std::int64_t last_use_unix = 0;
  };

  /// Takes the directory over (kFailedPrecondition, naming the owner's pid, while another process
  /// has it), recovers what a crash left. `files`, `scheduler` and `clock` must outlive the cache.
  static Result<std::unique_ptr<BlobCache>> Open(const Options& options, CacheFiles& files,
                                                 Scheduler& scheduler, Clock& clock);
  virtual ~BlobCache() = default;

  /// Users of the same id share everything that is cached; each has its own object, which reads
  /// only after its own map has been compared with the one that the content was verified by
  /// (kFailedPrecondition when they differ: an image cannot pass its content off as another's).
  /// A map may lack what some chunks are verified by: they are neither fetched nor counted, and
  /// reading them is kFailedPrecondition, until a user whose map has it is admitted.
  virtual Result<std::shared_ptr<CachedBlob>> OpenBlob(const BlobSpec& spec) = 0;
  /// Makes the ranges local in the background, in this order; returns at once. `cause` is
  /// kPrefetch or kBackfill. Background work takes the room of blobs that nobody uses; what is in
  /// use is never evicted for it: without room it waits and goes on when there is some.
  virtual void Prefetch(const std::shared_ptr<CachedBlob>& blob, std::vector<ByteRange> ranges,
                        Cause cause) = 0;
  /// Fetches everything that is missing, recorded accesses first, in the background, until the
  /// blob is complete or no longer in use. `on_end` (may be null) runs once on a thread of the
  /// cache: OK when the blob is complete. Whoever wants it at once is also told when there is no
  /// room (kResourceExhausted); the fill still goes on when there is some. Asked for again with
  /// kAtOnce, what waits goes on.
  virtual void Fill(const std::shared_ptr<CachedBlob>& blob, FillEnd on_end, FillStart start) = 0;
  void Fill(const std::shared_ptr<CachedBlob>& blob, FillEnd on_end) {
    Fill(blob, std::move(on_end), FillStart::kWhenQuiet);
  }
  /// Stops background work for the blob (unmount).
  virtual void StopBackground(const BlobId& id) = 0;
  /// Frees at least `bytes` if it can, unused blobs first, then what was least recently read, never
  /// under a running read; the number of bytes freed. Waits for the disk; the other calls go on.
  virtual Result<std::uint64_t> Evict(std::uint64_t bytes) = 0;
  /// Forgets a blob that is not in use; kFailedPrecondition otherwise.
  virtual Status Remove(const BlobId& id) = 0;
  virtual std::vector<BlobInfo> List() const = 0;
  /// Also of a blob that nothing has read since the start: as it was when it was last in use. All
  /// zeros when the cache does not know it.
  virtual BlobProgress Progress(const BlobId& id) const = 0;
  /// Why background work on a blob in use does not come on: its last failure since anything of the
  /// blob arrived, or that there is no room. Nothing when it is complete for all that wait for it.
  /// A try that failed within the scheduler's patience is no failure yet.
  virtual std::optional<Error> BackgroundError(const BlobId& id) const = 0;
  virtual Stats stats() const = 0;
  /// Order in which the blob's chunks were first read (indices), for later images.
  virtual Result<std::vector<std::uint32_t>> AccessOrder(const BlobId& id) const = 0;
  /// Makes everything durable now.
  virtual Status Flush() = 0;
};

}  // namespace davit::storage
