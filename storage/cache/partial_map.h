#pragma once
// Maps of images that do not know all of a blob.

#include <atomic>
#include <memory>
#include <unordered_map>

#include "common/base/sync.h"
#include "storage/blob/blob.h"

namespace davit::storage {

/// Whether there is something that the chunk's bytes can be compared with.
inline bool CanVerify(const Chunk& chunk) { return chunk.digest || chunk.crc32c; }

/// A map some of whose chunks cannot be verified: upstream's merge keeps no digests of chunks that
/// only files had which an upper layer hides. Another image may use them, and then tells their
/// digests. Thread-safe.
class PartialMap final : public BlobMap {
 public:
  explicit PartialMap(std::shared_ptr<const BlobMap> base) : base_(std::move(base)) {}

  /// From now on ChunkAt(index) has what this chunk is verified by.
  void Learn(std::uint32_t index, const Chunk& chunk);

  DigestAlgorithm digest_algorithm() const override { return base_->digest_algorithm(); }
  std::uint64_t uncompressed_size() const override { return base_->uncompressed_size(); }
  std::uint64_t compressed_size() const override { return base_->compressed_size(); }
  std::uint32_t chunk_count() const override { return base_->chunk_count(); }
  std::uint32_t unit_count() const override { return base_->unit_count(); }
  Chunk ChunkAt(std::uint32_t index) const override;
  Unit UnitAt(std::uint32_t index) const override { return base_->UnitAt(index); }
  std::pair<std::uint32_t, std::uint32_t> ChunksOfUnit(std::uint32_t unit) const override {
    return base_->ChunksOfUnit(unit);
  }
  std::uint32_t FindChunk(std::uint64_t offset) const override { return base_->FindChunk(offset); }
  Status Decode(std::uint32_t unit, Bytes compressed, MutableBytes out) const override {
    return base_->Decode(unit, compressed, out);
  }

 private:
  struct Lesson {
    std::optional<Digest> digest;
    std::optional<std::uint32_t> crc32c;
  };
  const std::shared_ptr<const BlobMap> base_;
  mutable Mutex mutex_;  // taken last
  std::unordered_map<std::uint32_t, Lesson> lessons_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::storage
