#include "rafs/metadata/v6_digests.h"

#include <fmt/format.h>

#include <algorithm>

#include "rafs/layout/v6.h"

namespace davit::rafs {
namespace {

using v6::ChunkRecord;

ChunkRecord RecordAt(Bytes table, std::uint64_t position) {
  ChunkRecord record;
  std::memcpy(&record, table.data() + position * sizeof record, sizeof record);
  return record;
}

bool SayTheSame(const ChunkRecord& a, const ChunkRecord& b) {
  return std::ranges::equal(a.digest, b.digest) && a.uncompressed_size == b.uncompressed_size &&
         a.uncompressed_offset == b.uncompressed_offset &&
         (a.flags & v6::kChunkHasCrc32c) == (b.flags & v6::kChunkHasCrc32c) && a.crc32c == b.crc32c;
}

Status CheckRecord(const ChunkRecord& record, std::uint64_t position,
                   const std::vector<BlobRecord>& blobs) {
  std::uint32_t limit = 0;
  if (record.blob_index < blobs.size()) {
    const BlobRecord& blob = blobs[record.blob_index];
    // A dictionary's count says how many chunks it took; their indices are those of the blob.
    limit = (blob.features & storage::kBlobChunkDict) != 0 ? v6::kMaxChunksPerBlob
                                                           : blob.ci.chunk_count;
  }
  if (record.chunk_index < limit) return {};
  return Error(Code::kDataLoss, fmt::format("chunk table: record {} names chunk {} of blob {}, "
                                            "which does not exist",
                                            position, record.chunk_index, record.blob_index));
}

}  // namespace

Result<std::shared_ptr<const V6ChunkIndex>> V6ChunkIndex::Build(
    Bytes table, std::shared_ptr<const void> owner, const std::vector<BlobRecord>& blobs) {
  const std::uint64_t count = table.size() / sizeof(ChunkRecord);
  if (count > 0xFFFF'FFFF) return Error(Code::kDataLoss, "chunk table: too many records");
  // Blob (8 bits), chunk (24 bits) and position (32 bits) in one number sort in one go.
  std::vector<std::uint64_t> keys;
  keys.reserve(count);
  for (std::uint64_t i = 0; i < count; ++i) {
    const ChunkRecord record = RecordAt(table, i);
    DAVIT_TRY(CheckRecord(record, i, blobs));
    keys.push_back(std::uint64_t{record.blob_index} << 56 |
                   std::uint64_t{record.chunk_index} << 32 | i);
  }
  std::ranges::sort(keys);

  std::shared_ptr<V6ChunkIndex> index(new V6ChunkIndex(table, std::move(owner)));
  index->positions_.reserve(count);
  std::vector<std::uint32_t> per_blob(blobs.size() + 1, 0);
  for (std::size_t k = 0; k < keys.size(); ++k) {
    const auto position = static_cast<std::uint32_t>(keys[k]);
    if (k > 0 && keys[k] >> 32 == keys[k - 1] >> 32) {
      const auto kept = index->positions_.back();
      if (SayTheSame(RecordAt(table, kept), RecordAt(table, position))) continue;
      return Error(
          Code::kDataLoss,
          fmt::format("chunk table: records {} and {} contradict each other", kept, position));
    }
    index->positions_.push_back(position);
    ++per_blob[(keys[k] >> 56) + 1];
  }
  for (std::size_t b = 1; b < per_blob.size(); ++b) per_blob[b] += per_blob[b - 1];
  index->begin_ = std::move(per_blob);
  return index;
}

std::uint32_t V6ChunkIndex::ChunkIndexAt(std::uint32_t position) const {
  std::uint32_t out;
  std::memcpy(&out,
              table_.data() + std::uint64_t{position} * sizeof(ChunkRecord) +
                  offsetof(ChunkRecord, chunk_index),
              sizeof out);
  return out;
}

storage::ChunkDigests::Entry V6ChunkIndex::Get(std::uint32_t blob, std::uint32_t chunk) const {
  if (blob + std::uint64_t{1} >= begin_.size()) return {};
  const auto first = positions_.begin() + begin_[blob];
  const auto last = positions_.begin() + begin_[blob + 1];
  // Where no chunk is missing, the chunk's index is its rank.
  auto it = first;
  if (chunk < last - first && ChunkIndexAt(first[chunk]) == chunk) {
    it = first + chunk;
  } else {
    it = std::lower_bound(first, last, chunk, [&](std::uint32_t position, std::uint32_t wanted) {
      return ChunkIndexAt(position) < wanted;
    });
    if (it == last || ChunkIndexAt(*it) != chunk) return {};
  }
  const ChunkRecord record = RecordAt(table_, *it);
  storage::ChunkDigests::Entry entry;
  Digest digest;
  std::memcpy(digest.bytes.data(), record.digest, sizeof record.digest);
  if (digest != Digest{}) entry.digest = digest;  // all zeros: the writer had none
  if ((record.flags & v6::kChunkHasCrc32c) != 0) entry.crc32c = record.crc32c;
  entry.place = storage::ChunkDigests::Place{record.uncompressed_offset, record.uncompressed_size};
  return entry;
}

}  // namespace davit::rafs
