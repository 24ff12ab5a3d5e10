#include "storage/cache/reuse.h"

#include <algorithm>
#include <map>
#include <memory>

#include "common/base/log.h"
#include "storage/cache/blob_core.h"
#include "storage/cache/decoder.h"
#include "storage/cache/index_db.h"

namespace davit::storage {
namespace {

constexpr std::uint64_t kBlock = 4096;
// Below this, a copy costs less than a file in many pieces.
constexpr std::uint64_t kLeastClone = 64U << 10;

class Copier {
 public:
  explicit Copier(Flight& flight)
      : flight_(flight), core_(*flight.blob), env_(core_.env()), map_(*core_.loaded()->map) {}

  bool CopyUnit(std::uint32_t unit) {
    const auto [first, last] = map_.ChunksOfUnit(unit);
    std::uint64_t copied = 0;
    for (std::uint32_t i = first; i < last; ++i) {
      // What readers may be reading is left alone; so is what the image does not know.
      if (core_.loaded()->ready.Test(i)) continue;
      const Chunk chunk = map_.ChunkAt(i);
      // A checksum does not tell one content from another; only a digest does.
      if (!chunk.digest || !CopyChunk(chunk, Room(i))) return false;
      copied += chunk.size;
    }
    if (copied == 0) return false;
    env_.counters.deduplicated_bytes.fetch_add(copied);
    core_.Publish(flight_, std::span(&unit, 1));
    return true;
  }

 private:
  /// From the chunk's beginning to the next one's, or the blob's end.
  std::uint64_t Room(std::uint32_t chunk) const {
    const std::uint64_t end =
        chunk + 1 < map_.chunk_count() ? map_.ChunkAt(chunk + 1).offset : core_.size();
    return end - map_.ChunkAt(chunk).offset;
  }

  bool CopyChunk(const Chunk& chunk, std::uint64_t room) {
    for (const IndexDb::Place& place : env_.index->Find(*chunk.digest, chunk.size, core_.id())) {
      CacheFile* file = DataOf(place.blob);
      if (file == nullptr) continue;
      if (CloneChunk(*file, place.offset, chunk, room)) return true;
      bytes_.resize(chunk.size);
      const Result<std::size_t> got = file->ReadAt(place.offset, bytes_);
      if (!got.ok() || *got != bytes_.size() || !VerifyChunk(map_, chunk, bytes_).ok()) continue;
      return WriteVerified(core_, chunk.offset, bytes_).ok();
    }
    return false;
  }

  // Whole blocks only: what is behind the chunk in its last one must be padding in both blobs.
  bool CloneChunk(CacheFile& source, std::uint64_t offset, const Chunk& chunk, std::uint64_t room) {
    const std::uint64_t length = AlignUp(chunk.size, kBlock);
    if (!env_.can_clone.load() || chunk.size < kLeastClone || length > room ||
        offset % kBlock != 0 || chunk.offset % kBlock != 0 || !core_.KeepSize().ok()) {
      return false;
    }
    CacheFile& data = core_.data();
    const Status cloned = data.CloneFrom(source, offset, {chunk.offset, length});
    if (!cloned.ok()) {
      if (cloned.error().code() == Code::kUnsupported) env_.can_clone = false;
      return false;
    }
    // Checked where it is now: until then the other blob may have been evicted.
    bytes_.resize(length);
    const Result<std::size_t> got = data.ReadAt(chunk.offset, bytes_);
    const Bytes all = bytes_;
    const Bytes padding = all.subspan(chunk.size);
    if (got.ok() && *got == length && VerifyChunk(map_, chunk, all.first(chunk.size)).ok() &&
        std::all_of(padding.begin(), padding.end(), [](std::byte b) { return b == std::byte{}; })) {
      return true;
    }
    if (const Status punched = data.PunchHole({chunk.offset, length}); !punched.ok()) {
      log::Warn("cannot take back shared blocks",
                {{"blob", core_.id().value}, {"error", punched.error()}});
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
