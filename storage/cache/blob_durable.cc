// From "ready" to "durable" and back: flushing and eviction. Both hold durable_mutex_ from the
// first look to the last sync, so that a bit can never be made durable for data that goes away.

#include <fmt/format.h>

#include <algorithm>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "storage/cache/blob_core.h"
#include "storage/cache/index_db.h"

namespace davit::storage {
Status BlobCore::Flush() {
  LoadedMap* loaded = loaded_.load();
  if (loaded == nullptr) return {};
  MutexLock durable(durable_mutex_);
  std::vector<std::uint32_t> chunks;
  {
    MutexLock lock(mutex_);
    chunks.swap(dirty_);
  }
  if (chunks.empty()) return {};
  Status status = data_->SyncData();
  if (!status.ok()) {
    // After a failed sync the kernel may have forgotten the dirty pages: what they held is not
    // known to be on disk, now or ever.
    env_.counters.write_errors.fetch_add(1);
    ClearReady(*loaded, chunks);
    return std::move(status).error().WithContext("blob " + id_.value);
  }
  status = ready_file_->Update(chunks, {});
  if (status.ok()) {
    IndexDigests(*loaded, chunks, true);
    return {};
  }
  env_.counters.write_errors.fetch_add(1);
  MutexLock lock(mutex_);
  dirty_.insert(dirty_.end(), chunks.begin(), chunks.end());
  return std::move(status).error().WithContext("blob " + id_.value);
}

std::uint64_t BlobCore::ClearReady(LoadedMap& loaded, std::span<const std::uint32_t> chunks) {
  std::uint64_t bytes = 0;
  std::uint64_t disk_bytes = 0;
  for (const std::uint32_t chunk : chunks) {
    if (loaded.IsUnknown(chunk) || !loaded.ready.Clear(chunk)) continue;
    ready_chunks_.fetch_sub(1);
    const std::uint32_t size = loaded.map->ChunkAt(chunk).size;
    bytes += size;
    disk_bytes += DiskSize(size);
  }
  ready_bytes_.fetch_sub(bytes);
  Account(-static_cast<std::int64_t>(disk_bytes));
  return disk_bytes;
}

void BlobCore::IndexDigests(const LoadedMap& loaded, std::span<const std::uint32_t> chunks,
                            bool add) {
  if (!env_.index) return;
  std::vector<IndexDb::DigestRow> rows;
  for (const std::uint32_t i : chunks) {
    const Chunk chunk = loaded.map->ChunkAt(i);
    if (chunk.digest) rows.push_back({*chunk.digest, chunk.offset, chunk.size});
  }
  const Status status =
      add ? env_.index->AddDigests(id_, rows) : env_.index->RemoveDigests(id_, rows);
  if (!status.ok())
    log::Warn("digests not recorded",
              {{"blob", id_.value}, {"image", ImageNames()}, {"error", status.error()}});
}

// Units that are on their way are left alone; the others are taken, so that nobody fetches them
// anew before their holes are punched.
std::vector<std::uint32_t> BlobCore::ClaimForEviction(LoadedMap& loaded,
                                                      std::span<const std::uint32_t> groups,
                                                      const FlightPtr& claim) {
  std::vector<std::uint32_t> chunks;
  MutexLock lock(mutex_);
  for (const std::uint32_t group : groups) {
    const std::uint32_t end = std::min(loaded.map->chunk_count(), (group + 1) << kGroupShift);
    for (std::uint32_t i = group << kGroupShift; i < end; ++i) {
      if (!loaded.Holds(i)) continue;
      const std::uint32_t unit = loaded.map->ChunkAt(i).unit;
      if (!flights_.try_emplace(unit, claim).second) continue;
      const auto [first, last] = loaded.map->ChunksOfUnit(unit);
      for (std::uint32_t c = first; c < last; ++c) chunks.push_back(c);
    }
  }
  return chunks;
}

void BlobCore::ReleaseEvicted(const Flight& claim) {
  MutexLock lock(mutex_);
  std::erase_if(flights_, [&](const auto& entry) { return entry.second.get() == &claim; });
}

Status BlobCore::PunchChunks(const LoadedMap& loaded, std::span<const std::uint32_t> chunks) {
  std::vector<std::uint32_t> sorted(chunks.begin(), chunks.end());
  std::sort(sorted.begin(), sorted.end());
  for (std::size_t i = 0; i < sorted.size();) {
    // Neighbours go in one hole, with the padding between them: blocks are freed as a whole.
    const Chunk first = loaded.map->ChunkAt(sorted[i]);
    std::uint64_t end = first.offset + first.size;
    std::size_t next = i + 1;
    for (; next < sorted.size() && sorted[next] == sorted[next - 1] + 1; ++next) {
      const Chunk chunk = loaded.map->ChunkAt(sorted[next]);
      end = chunk.offset + chunk.size;
    }
    // The padding behind the last one belongs to no chunk either.
    const std::uint32_t following = sorted[next - 1] + 1;
    const std::uint64_t limit =
        following < loaded.map->chunk_count() ? loaded.map->ChunkAt(following).offset : size_;
    end = std::min(AlignUp(end, 4096), limit);
    DAVIT_TRY(data_->PunchHole({first.offset, end - first.offset}));
    i = next;
  }
  return {};
}

Result<std::uint64_t> BlobCore::ForgetChunks(LoadedMap& loaded,
                                             std::span<const std::uint32_t> chunks) {
  // On disk first. If this fails all is as before: what can be read stays in use, and what cannot
  // is tried again. (The disk may have lost some of the bits; that costs work after a restart.)
  DAVIT_TRY(ready_file_->Update({}, chunks));
  const std::uint64_t bytes = ClearReady(loaded, chunks);
  {
    const std::set<std::uint32_t> forgotten(chunks.begin(), chunks.end());
    MutexLock lock(mutex_);
    std::erase_if(dirty_, [&](std::uint32_t chunk) { return forgotten.contains(chunk); });
  }
  IndexDigests(loaded, chunks, false);
  return bytes;
}

Result<std::uint64_t> BlobCore::EvictChunks(LoadedMap& loaded,
                                            std::span<const std::uint32_t> chunks) {
  if (!epoch_.Ready(kReaderPatience)) return 0;
  DAVIT_TRY_ASSIGN(const std::uint64_t bytes, ForgetChunks(loaded, chunks));
  if (!epoch_.WaitForReaders(kReaderPatience) || pins_.load() != 0) return 0;
  DAVIT_TRY(PunchChunks(loaded, chunks));
  env_.counters.evicted_bytes.fetch_add(bytes);
  return bytes;
}

Result<std::uint64_t> BlobCore::EvictGroups(std::span<const std::uint32_t> groups) {
  LoadedMap* loaded = loaded_.load();
  if (loaded == nullptr || groups.empty() || pins_.load() != 0) return 0;
  auto claim = std::make_shared<Flight>();
  claim->cause = Cause::kBackfill;
  MutexLock durable(durable_mutex_);
  const std::vector<std::uint32_t> chunks = ClaimForEviction(*loaded, groups, claim);
  if (chunks.empty()) return 0;
  const Result<std::uint64_t> result = EvictChunks(*loaded, chunks);
  ReleaseEvicted(*claim);
  claim->changed.NotifyAll();
  return result;
}

}  // namespace davit::storage
