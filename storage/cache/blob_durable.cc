// From "ready" to "durable" and back: flushing and eviction. Both hold durable_mutex_ from the
// first look to the last sync, so that a bit can never be made durable for data that goes away.

#include <fmt/format.h>

#include <algorithm>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "storage/cache/blob_core.h"

namespace davit::storage {
namespace {
constexpr std::chrono::seconds kReaderPatience{5};
}

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
    DropUnsynced(*loaded, chunks);
    return std::move(status).error().WithContext("blob " + id_.value);
  }
  status = ready_file_->Update(chunks, {});
  if (status.ok()) return {};
  env_.counters.write_errors.fetch_add(1);
  MutexLock lock(mutex_);
  dirty_.insert(dirty_.end(), chunks.begin(), chunks.end());
  return std::move(status).error().WithContext("blob " + id_.value);
}

void BlobCore::DropUnsynced(LoadedMap& loaded, std::span<const std::uint32_t> chunks) {
  std::uint64_t bytes = 0;
  for (const std::uint32_t chunk : chunks) {
    if (!loaded.ready.Clear(chunk)) continue;
    bytes += loaded.map->ChunkAt(chunk).size;
    ready_chunks_.fetch_sub(1);
  }
  ready_bytes_.fetch_sub(bytes);
  Account(-static_cast<std::int64_t>(bytes));
}

}  // namespace davit::storage
