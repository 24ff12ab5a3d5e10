// Maintenance and eviction.

#include <algorithm>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "storage/cache/blob_cache_impl.h"
#include "storage/cache/evictor.h"

namespace davit::storage {

void BlobCacheImpl::SaveIndex() {
  std::vector<IndexDb::BlobRow> rows;
  {
    MutexLock lock(mutex_);
    for (auto& [id, entry] : entries_) {
      const BlobProgress progress = entry.Known();
      IndexDb::BlobRow row{id, progress.bytes_ready, progress.bytes_total, progress.complete,
                           entry.last_use};
      if (row == entry.saved) continue;
      entry.saved = row;
      rows.push_back(std::move(row));
    }
  }
  if (const Status status = env_.index->SaveBlobs(rows); !status.ok()) {
    log::Warn("the cache's statistics are not saved", {{"error", status.error()}});
  }
}

std::uint64_t BlobCacheImpl::EvictBytes(std::uint64_t bytes) {
  MutexLock lock(evict_mutex_);
  std::uint64_t freed = EvictUnused(bytes);
  if (freed < bytes) freed += EvictLeastRecent(OpenCores(), bytes - freed);
  return freed;
}

std::uint64_t BlobCacheImpl::EvictUnused(std::uint64_t bytes) {
  std::uint64_t freed = 0;
  std::set<BlobId> failed;  // one that cannot be removed must not keep the others
  while (freed < bytes) {
    const std::optional<BlobId> oldest = TakeOldestUnused(failed);
    if (!oldest) break;
    const Result<std::uint64_t> removed = RemoveTaken(*oldest);
    if (!removed.ok()) {
      failed.insert(*oldest);
      if (stuck_.insert(*oldest).second) {
        log::Warn("cannot remove a blob from the cache",
                  {{"blob", oldest->value}, {"error", removed.error()}});
      }
      continue;
    }
    stuck_.erase(*oldest);
    freed += *removed;
    env_.counters.evicted_bytes.fetch_add(*removed);
  }
  return freed;
}

std::optional<BlobId> BlobCacheImpl::TakeOldestUnused(const std::set<BlobId>& except) {
  MutexLock lock(mutex_);
  auto oldest = entries_.end();
  for (auto it = entries_.begin(); it != entries_.end(); ++it) {
    if (it->second.core || it->second.busy || it->second.disk_bytes == 0) continue;
    if (except.contains(it->first)) continue;
    if (oldest == entries_.end() || it->second.last_use < oldest->second.last_use) oldest = it;
  }
  if (oldest == entries_.end()) return std::nullopt;
  oldest->second.busy = true;
  return oldest->first;
}

Result<std::uint64_t> BlobCacheImpl::RemoveTaken(const BlobId& id) {
  const Status removed = RemoveFiles(id);
  std::uint64_t bytes = 0;
  {
    MutexLock lock(mutex_);
    const auto entry = entries_.find(id);
    entry->second.busy = false;
    if (removed) {
      bytes = entry->second.disk_bytes;
      env_.bytes_on_disk.fetch_sub(static_cast<std::int64_t>(bytes));
      entries_.erase(entry);
    }
    changed_.NotifyAll();
  }
  DAVIT_TRY(removed);
  return bytes;
}

// The bits go before the data they speak of. The blob is not open.
Status BlobCacheImpl::RemoveFiles(const BlobId& id) {
  const std::string path = dir_.BlobPath(id);
  DAVIT_TRY(env_.files.Remove(path + "/ready"));
  DAVIT_TRY(SyncDirectory(path));
  DAVIT_TRY(env_.files.Remove(path + "/data"));
  DAVIT_TRY(RemoveTree(path));
  if (const Status status = env_.index->RemoveBlob(id); !status.ok()) {
    log::Warn("a removed blob stays in the index", {{"blob", id.value}, {"error", status.error()}});
  }
  return {};
}

// Some distance, so that background work does not start and stop at the limit.
std::uint64_t BlobCacheImpl::EnoughFree() const {
  return env_.options.reserve_free_bytes + env_.options.reserve_free_bytes / 8;
}

std::optional<std::uint64_t> BlobCacheImpl::LookAtFreeSpace() {
  const auto free = env_.files.FreeBytes(dir_.path());
  if (!free.ok()) return std::nullopt;
  env_.disk_is_short = *free < EnoughFree();
  return *free;
}

void BlobCacheImpl::KeepWithinLimits() {
  const Options& options = env_.options;
  std::uint64_t wanted = 0;
  if (env_.OverBudget()) {
    const double low = static_cast<double>(options.budget_bytes) * options.low_watermark;
    wanted = static_cast<std::uint64_t>(static_cast<double>(env_.bytes_on_disk.load()) - low);
  }
  if (const auto free = LookAtFreeSpace(); free && *free < options.reserve_free_bytes) {
    wanted = std::max(wanted, options.reserve_free_bytes - *free);
  }
  if (wanted == 0) return;
  const std::uint64_t freed = EvictBytes(wanted);
  log::Info("evicted cached data", {{"bytes", freed}, {"wanted", wanted}});
}

void BlobCacheImpl::MakeRoomForBackground() {
  const auto cores = OpenCores();
  std::uint64_t asked = 0;
  for (const auto& core : cores) asked = std::max(asked, core->short_of());
  if (asked == 0) return;
  const Options& options = env_.options;
  double wanted = 0;
  if (options.budget_bytes != 0) {
    wanted = static_cast<double>(env_.bytes_on_disk.load() + env_.background_bytes.load()) +
             static_cast<double>(asked) -
             static_cast<double>(options.budget_bytes) * options.low_watermark + 1;
  }
  if (const auto free = LookAtFreeSpace(); free && env_.disk_is_short.load()) {
    wanted = std::max(wanted, static_cast<double>(EnoughFree()) + static_cast<double>(asked) -
                                  static_cast<double>(*free));
  }
  if (wanted > 0) {
    std::uint64_t freed = 0;
    {
      MutexLock lock(evict_mutex_);
      freed = EvictUnused(static_cast<std::uint64_t>(wanted));
    }
    if (freed > 0) {
      log::Info("evicted blobs that nobody uses, to fetch others ahead", {{"bytes", freed}});
      LookAtFreeSpace();
    }
  }
  for (const auto& core : cores) core->TryRoom();
}

void BlobCacheImpl::CloseUnused() {
  for (const auto& core : OpenCores()) {
    if (core->idle()) core->SaveAccessOrder();
  }
  std::vector<std::shared_ptr<BlobCore>> closed;  // destroyed outside of the lock
  MutexLock lock(mutex_);
  for (auto& [id, entry] : entries_) {
    if (!entry.core || entry.users > 0 || !entry.core->idle() || entry.core.use_count() > 1) {
      continue;
    }
    entry.progress = entry.Known();
    entry.disk_bytes = entry.core->accounted_bytes();
    closed.push_back(std::move(entry.core));
  }
}

void BlobCacheImpl::MaintainOnce() {
  env_.tick.fetch_add(1);
  std::vector<std::function<void()>> ends;
  for (const auto& core : OpenCores()) {
    if (const Status status = core->Flush(); !status.ok()) {
      log::Error("cannot make cached data durable", {{"error", status.error()}});
    }
    core->Pump();
  }
  CloseUnused();
  KeepWithinLimits();
  MakeRoomForBackground();
  for (const auto& core : OpenCores()) {
    for (auto& end : core->TakeEnds()) ends.push_back(std::move(end));
  }
  SaveIndex();
  env_.buffers.Trim();
  env_.scratch.Trim();
  for (const auto& end : ends) end();
}

void BlobCacheImpl::Maintain(const std::stop_token& stop) {
  SetThreadName("cache-keeper");
  while (!stop.stop_requested()) {
    {
      MutexLock lock(mutex_);
      if (!work_) {
        wake_.Wait(mutex_, env_.clock, stop, {}, env_.clock.Now() + env_.options.flush_interval);
      }
      work_ = false;
    }
    if (!stop.stop_requested()) MaintainOnce();
  }
}

}  // namespace davit::storage
