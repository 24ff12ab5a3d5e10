#include "storage/cache/reuse.h"

#include <map>
#include <memory>

#include "storage/cache/blob_core.h"
#include "storage/cache/decoder.h"
#include "storage/cache/index_db.h"

namespace davit::storage {
namespace {

class Copier {
 public:
  explicit Copier(Flight& flight)
      : flight_(flight), core_(*flight.blob), env_(core_.env()), map_(*core_.loaded()->map) {}

  bool CopyUnit(std::uint32_t unit) {
    const auto [first, last] = map_.ChunksOfUnit(unit);
    std::uint64_t copied = 0;
    for (std::uint32_t i = first; i < last; ++i) {
      const Chunk chunk = map_.ChunkAt(i);
      // A checksum does not tell one content from another; only a digest does.
      if (!chunk.digest || !CopyChunk(chunk)) return false;
      copied += chunk.size;
    }
    if (copied == 0) return false;
    env_.counters.deduplicated_bytes.fetch_add(copied);
    core_.Publish(flight_, std::span(&unit, 1));
    return true;
  }

 private:
  bool CopyChunk(const Chunk& chunk) {
    for (const IndexDb::Place& place : env_.index->Find(*chunk.digest, chunk.size, core_.id())) {
      CacheFile* file = DataOf(place.blob);
      if (file == nullptr) continue;
      bytes_.resize(chunk.size);
      const Result<std::size_t> got = file->ReadAt(place.offset, bytes_);
      if (!got.ok() || *got != bytes_.size() || !VerifyChunk(map_, chunk, bytes_).ok()) continue;
      return WriteVerified(core_, chunk.offset, bytes_).ok();
    }
    return false;
  }

  CacheFile* DataOf(const BlobId& id) {
    auto [it, added] = files_.try_emplace(id);
    if (added) {
      const std::string path = env_.options.directory + "/blobs/" + id.value + "/data";
      if (auto file = env_.files.Open(path); file.ok()) it->second = *std::move(file);
    }
    return it->second.get();
  }

  Flight& flight_;
  BlobCore& core_;
  CacheEnv& env_;
  const BlobMap& map_;
  std::vector<std::byte> bytes_;
  std::map<BlobId, std::unique_ptr<CacheFile>> files_;
};

}  // namespace

std::vector<std::uint32_t> CopyFromOtherBlobs(Flight& flight, std::vector<std::uint32_t> units) {
  CacheEnv& env = flight.blob->env();
  if (!env.index || !env.index->MayFind(flight.blob->id())) return units;
  Copier copier(flight);
  std::erase_if(units, [&](std::uint32_t unit) {
    return !flight.stop.stop_requested() && copier.CopyUnit(unit);
  });
  return units;
}

}  // namespace davit::storage
