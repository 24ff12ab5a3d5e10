#pragma once
// The cache as one class: blob_cache.cc opens and lists, blob_cache_keep.cc maintains and evicts.

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "common/base/sync.h"
#include "storage/cache/blob_core.h"
#include "storage/cache/cache_dir.h"
#include "storage/cache/cache_env.h"
#include "storage/cache/index_db.h"
#include "storage/sched/wake.h"

namespace davit::storage {

/// Seconds since 1970.
inline std::int64_t UnixNow(const Clock& clock) {
  return std::chrono::duration_cast<std::chrono::seconds>(clock.WallNow().time_since_epoch())
      .count();
}

/// No lock is held over the disk: lists and counters never wait for it.
class BlobCacheImpl final : public BlobCache {
 public:
  BlobCacheImpl(CacheDir dir, const Options& options, CacheFiles& files, Scheduler& scheduler,
                Clock& clock)
      : env_(options, files, scheduler, clock), dir_(std::move(dir)) {}
  ~BlobCacheImpl() override;
  Status Start();

  Result<std::shared_ptr<CachedBlob>> OpenBlob(const BlobSpec& spec) override;
  void Prefetch(const std::shared_ptr<CachedBlob>& blob, std::vector<ByteRange> ranges,
                Cause cause) override;
  void Fill(const std::shared_ptr<CachedBlob>& blob, FillEnd on_end, FillStart start) override;
  void StopBackground(const BlobId& id) override;
  Result<std::uint64_t> Evict(std::uint64_t bytes) override;
  Status Remove(const BlobId& id) override;
  std::vector<BlobInfo> List() const override;
  BlobProgress Progress(const BlobId& id) const override;
  std::optional<Error> BackgroundError(const BlobId& id) const override;
  Stats stats() const override;
  Result<std::vector<std::uint32_t>> AccessOrder(const BlobId& id) const override;
  Status Flush() override;

 private:
  struct Entry {
    std::shared_ptr<BlobCore> core;  // while it is open
    int users = 0;
    BlobProgress progress;  // when it was last open
    std::int64_t last_use = 0;
    std::uint64_t disk_bytes = 0;  // while it is not open
    IndexDb::BlobRow saved;        // in the database
    bool busy = false;  // being opened or removed, without the lock: nobody else touches it

    BlobProgress Known() const {
      return core != nullptr && core->loaded() != nullptr ? core->progress() : progress;
    }
  };
  /// Ends with the cache; handles that outlive it find it gone.
  struct Alive {
    Mutex mutex;
    BlobCacheImpl* cache DAVIT_GUARDED_BY(mutex);
  };
  std::shared_ptr<BlobCore> CoreOf(const BlobId& id) const;
  std::vector<std::shared_ptr<BlobCore>> OpenCores() const;
  void OnRelease(const BlobId& id, const std::shared_ptr<BlobUser>& user);
  void Maintain(const std::stop_token& stop);
  void MaintainOnce();
  /// The blob's entry, a new one if there is none, when nobody is opening or removing it.
  Entry& FreeEntry(const BlobId& id) DAVIT_REQUIRES(mutex_);
  /// Opens the entry's blob; meanwhile the entry is busy and the lock is free.
  Status OpenCore(const BlobSpec& spec, Entry& entry) DAVIT_REQUIRES(mutex_);
  void CloseUnused();
  void SaveIndex();
  Status LoadEntries();
  /// Whole blobs that nobody uses, least recently used first.
  std::uint64_t EvictUnused(std::uint64_t bytes) DAVIT_REQUIRES(evict_mutex_);
  std::uint64_t EvictBytes(std::uint64_t bytes) DAVIT_EXCLUDES(evict_mutex_);
  /// The oldest of what nobody uses, taken: only RemoveTaken() may follow.
  std::optional<BlobId> TakeOldestUnused(const std::set<BlobId>& except) DAVIT_EXCLUDES(mutex_);
  /// Of an entry that is busy for this, and is no longer there afterwards, unless it failed. The
  /// number of bytes freed.
  Result<std::uint64_t> RemoveTaken(const BlobId& id) DAVIT_EXCLUDES(mutex_);
  Status RemoveFiles(const BlobId& id);
  void KeepWithinLimits();
  std::uint64_t EnoughFree() const;
  /// Sets disk_is_short; the free bytes of the cache's file system.
  std::optional<std::uint64_t> LookAtFreeSpace();
  /// Evicts what nobody uses for background work that waits for room, and tells it.
  void MakeRoomForBackground();

  CacheEnv env_;
  const CacheDir dir_;
  const std::shared_ptr<Alive> alive_ = std::make_shared<Alive>();
  Mutex evict_mutex_;  // one eviction at a time; before mutex_ and the blobs' mutexes
  std::set<BlobId> stuck_ DAVIT_GUARDED_BY(evict_mutex_);  // could not be removed; was said
  mutable Mutex mutex_;
  CondVar changed_;  // an entry is no longer busy
  std::map<BlobId, Entry> entries_ DAVIT_GUARDED_BY(mutex_);
  WakeUp wake_ DAVIT_GUARDED_BY(mutex_);
  bool work_ DAVIT_GUARDED_BY(mutex_) = false;
  std::jthread maintenance_;
};

}  // namespace davit::storage
