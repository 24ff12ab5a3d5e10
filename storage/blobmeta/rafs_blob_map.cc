// The BlobMap of plain and batch blobs. It keeps the array as it was stored (16 or 24 bytes a
// chunk) and decodes a record when it is asked for; batches add four bytes per unit.

#include <fmt/format.h>

#include <algorithm>
#include <ranges>

#include "storage/blobmeta/ci.h"
#include "storage/blobmeta/ci_record.h"

namespace davit::storage {
namespace {

class RafsBlobMap final : public BlobMap {
 public:
  RafsBlobMap(std::string array, const CiExpectation& expect,
              std::shared_ptr<const ChunkDigests> digests)
      : array_(std::move(array)), expect_(expect), digests_(std::move(digests)) {}

  /// Must be called first. Finds the counts, checks every record and builds the unit table.
  Status Load();

  DigestAlgorithm digest_algorithm() const override { return expect_.digest_algorithm; }
  std::uint64_t uncompressed_size() const override { return expect_.uncompressed_size; }
  std::uint64_t compressed_size() const override { return expect_.data_size; }
  std::uint32_t chunk_count() const override { return records_; }
  std::uint32_t unit_count() const override {
    return has_batches() ? static_cast<std::uint32_t>(first_chunk_.size()) : records_;
  }
  Chunk ChunkAt(std::uint32_t index) const override;
  Unit UnitAt(std::uint32_t index) const override;
  std::pair<std::uint32_t, std::uint32_t> ChunksOfUnit(std::uint32_t unit) const override;
  std::uint32_t FindChunk(std::uint64_t offset) const override;
  Status Decode(std::uint32_t unit, Bytes compressed, MutableBytes out) const override;

 private:
  struct Progress {  // of Load()
    std::uint64_t chunk_end = 0;
    std::uint64_t unit_end = 0;
    bool in_batch = false;  // the last record was a member of this batch:
    std::uint32_t batch_index = 0;
    std::uint64_t batch_offset = 0;
  };

  bool v2() const { return (expect_.features & kBlobCiV2) != 0; }
  bool has_batches() const { return (expect_.features & kBlobBatch) != 0; }
  CiView View(std::uint32_t index) const;
  BatchContext Context(std::uint32_t index) const;
  Unit UnitOf(const CiRecord& record) const;
  Status CountRecords();
  Status CheckRecord(std::uint32_t index, Progress& progress);
  Status CheckFlags(const CiView& view) const;
  Status CheckUnit(std::uint32_t index, const CiRecord& record, Progress& progress);
  Error Damaged(std::string_view what) const {
    return Error(Code::kDataLoss, fmt::format("chunk info of blob {}: {}", expect_.id.value, what));
  }

  std::string array_;
  CiExpectation expect_;
  std::shared_ptr<const ChunkDigests> digests_;
  std::uint32_t records_ = 0;
  std::uint32_t contexts_ = 0;
  std::vector<std::uint32_t> first_chunk_;  // of each unit; batch blobs only
};

CiView RafsBlobMap::View(std::uint32_t index) const {
  const Bytes bytes = AsBytes(array_);
  return v2() ? DecodeRecordV2(bytes.subspan(index * kCiRecordSizeV2, kCiRecordSizeV2))
              : DecodeRecordV1(bytes.subspan(index * kCiRecordSizeV1, kCiRecordSizeV1));
}

BatchContext RafsBlobMap::Context(std::uint32_t index) const {
  BatchContext context;
  std::memcpy(&context, array_.data() + records_ * kCiRecordSizeV2 + index * kBatchContextSize,
              sizeof context);
  return context;
}

Unit RafsBlobMap::UnitOf(const CiRecord& r) const {
  if (!r.batch) return {r.compressed_offset, r.compressed_size, r.uncompressed_size};
  const BatchContext context = Context(r.batch_index);
  return {r.compressed_offset, context.compressed_size, context.uncompressed_size};
}

Status RafsBlobMap::CountRecords() {
  const std::size_t record_size = v2() ? kCiRecordSizeV2 : kCiRecordSizeV1;
  std::uint64_t count = expect_.chunk_count;
  // A dictionary's blob table tells how many chunks the dictionary took, not how many there are.
  if ((expect_.features & kBlobChunkDict) != 0 && !has_batches()) {
    count = array_.size() / record_size;
  }
  constexpr std::uint64_t kMaxChunks = 1ULL << 24;
  if (count > kMaxChunks) return Damaged(fmt::format("{} chunks are too many", count));
  if (array_.size() < count * record_size) {
    return Damaged(fmt::format("{} bytes are too few for {} records", array_.size(), count));
  }
  const std::uint64_t rest = array_.size() - count * record_size;
  const std::uint64_t contexts = has_batches() ? rest / kBatchContextSize : 0;
  if (rest != contexts * kBatchContextSize || contexts > count) {
    return Damaged(fmt::format("{} bytes behind {} records", rest, count));
  }
  records_ = static_cast<std::uint32_t>(count);
  contexts_ = static_cast<std::uint32_t>(contexts);
  return {};
}

Status RafsBlobMap::CheckFlags(const CiView& view) const {
  if ((view.flags & (kCiZran | kCiEncrypted)) != 0) {
    return Error(Code::kUnsupported,
                 (view.flags & kCiZran) != 0 ? "zran chunks" : "encrypted chunks");
  }
  constexpr unsigned kKnown = kCiCompressed | kCiBatch | kCiHasCrc32c;
  if ((view.flags & ~kKnown) != 0) {
    return Error(Code::kUnsupported, fmt::format("unknown chunk flags {:#x}", view.flags));
  }
  if (view.record.batch && !has_batches()) return Damaged("a batch member in a plain blob");
  return {};
}

Status RafsBlobMap::CheckUnit(std::uint32_t index, const CiRecord& r, Progress& progress) {
  if (r.batch) {
    if (r.batch_index >= contexts_) return Damaged(fmt::format("batch {}", r.batch_index));
    const std::uint64_t end = std::uint64_t{r.offset_in_batch} + r.uncompressed_size;
    if (end > Context(r.batch_index).uncompressed_size) return Damaged("a chunk beyond its batch");
    const bool same_unit = progress.in_batch && progress.batch_index == r.batch_index &&
                           progress.batch_offset == r.compressed_offset;
    progress.batch_index = r.batch_index;
    progress.batch_offset = r.compressed_offset;
    if (same_unit) return {};
  }
  progress.in_batch = r.batch;
  const Unit unit = UnitOf(r);
  if (unit.compressed_size == 0 || unit.uncompressed_size == 0 ||
      unit.uncompressed_size > kMaxUnitBytes) {
    return Damaged(fmt::format("impossible sizes {} (stored) and {}", unit.compressed_size,
                               unit.uncompressed_size));
  }
  const bool compressed = r.batch ? unit.compressed_size != unit.uncompressed_size : r.compressed;
  if (compressed ? expect_.compressor == codec::Algorithm::kNone
                 : unit.compressed_size != unit.uncompressed_size) {
    return Damaged("sizes contradict the way it is stored");
  }
  const std::uint64_t end = unit.compressed_offset + unit.compressed_size;
  if (unit.compressed_offset < progress.unit_end || end > expect_.data_size) {
    return Damaged(fmt::format("stored bytes {:#x}..{:#x} overlap others or leave the data ({:#x})",
                               unit.compressed_offset, end, expect_.data_size));
  }
  progress.unit_end = end;
  if (has_batches()) first_chunk_.push_back(index);
  return {};
}

Status RafsBlobMap::CheckRecord(std::uint32_t index, Progress& progress) {
  const CiView view = View(index);
  const CiRecord& r = view.record;
  DAVIT_TRY(CheckFlags(view));
  if (r.uncompressed_size > expect_.chunk_size) {
    return Damaged(fmt::format("size {} is over the image's chunk size {}", r.uncompressed_size,
                               expect_.chunk_size));
  }
  const std::uint64_t end = r.uncompressed_offset + r.uncompressed_size;
  if (r.uncompressed_offset < progress.chunk_end || end > expect_.uncompressed_size) {
    return Damaged(fmt::format("range {:#x}..{:#x} overlaps others or leaves the blob ({:#x})",
                               r.uncompressed_offset, end, expect_.uncompressed_size));
  }
  progress.chunk_end = end;
  DAVIT_TRY(CheckUnit(index, r, progress));
  if (digests_ == nullptr) return {};
  const auto place = digests_->Get(index).place;
  if (place && *place != ChunkDigests::Place{r.uncompressed_offset, r.uncompressed_size}) {
    return Damaged(fmt::format("it is at {:#x} (+{}), the bootstrap says {:#x} (+{})",
                               r.uncompressed_offset, r.uncompressed_size, place->offset,
                               place->size));
  }
  return {};
}

Status RafsBlobMap::Load() {
  DAVIT_TRY(CountRecords());
  Progress progress;
  for (std::uint32_t i = 0; i < records_; ++i) {
    auto status = CheckRecord(i, progress);
    if (!status) return std::move(status).error().WithContext(fmt::format("chunk {}", i));
  }
  first_chunk_.shrink_to_fit();
  return {};
}

Chunk RafsBlobMap::ChunkAt(std::uint32_t index) const {
  const CiRecord r = View(index).record;
  Chunk chunk;
  chunk.offset = r.uncompressed_offset;
  chunk.size = r.uncompressed_size;
  chunk.unit = index;
  if (has_batches()) {
    const auto next = std::ranges::upper_bound(first_chunk_, index);
    chunk.unit = static_cast<std::uint32_t>(next - first_chunk_.begin()) - 1;
  }
  chunk.offset_in_unit = r.batch ? r.offset_in_batch : 0;
  if (digests_ != nullptr) {
    auto entry = digests_->Get(index);
    chunk.digest = entry.digest;
    chunk.crc32c = entry.crc32c;
  }
  if (r.crc32c) chunk.crc32c = r.crc32c;
  return chunk;
}

Unit RafsBlobMap::UnitAt(std::uint32_t index) const {
  return UnitOf(View(has_batches() ? first_chunk_[index] : index).record);
}

std::pair<std::uint32_t, std::uint32_t> RafsBlobMap::ChunksOfUnit(std::uint32_t unit) const {
  if (!has_batches()) return {unit, unit + 1};
  const bool last = unit + 1 == first_chunk_.size();
  return {first_chunk_[unit], last ? records_ : first_chunk_[unit + 1]};
}

std::uint32_t RafsBlobMap::FindChunk(std::uint64_t offset) const {
  const auto indices = std::views::iota(std::uint32_t{0}, records_);
  return *std::ranges::partition_point(indices, [&](std::uint32_t i) {
    const CiRecord r = View(i).record;
    return r.uncompressed_offset + r.uncompressed_size <= offset;
  });
}

Status RafsBlobMap::Decode(std::uint32_t unit, Bytes compressed, MutableBytes out) const {
  const CiRecord r = View(has_batches() ? first_chunk_[unit] : unit).record;
  const Unit u = UnitOf(r);
  if (compressed.size() != u.compressed_size || out.size() != u.uncompressed_size) {
    return Damaged(fmt::format("unit {} got {} bytes for {}, room for {} of {}", unit,
                               compressed.size(), u.compressed_size, out.size(),
                               u.uncompressed_size));
  }
  const bool is_compressed = r.batch ? u.compressed_size != u.uncompressed_size : r.compressed;
  const auto algorithm = is_compressed ? expect_.compressor : codec::Algorithm::kNone;
  auto status = codec::Decompress(algorithm, compressed, out);
  if (!status) {
    return std::move(status).error().WithContext(fmt::format(
        "blob {}, bytes {:#x} (+{})", expect_.id.value, u.compressed_offset, u.compressed_size));
  }
  return {};
}

Status CheckFeatures(const CiExpectation& expect) {
  const auto refuse = [&](std::string_view what) {
    return Error(Code::kUnsupported, fmt::format("blob {}: {}", expect.id.value, what))
        .WithHint("convert the image again without this feature");
  };
  if ((expect.features & kBlobZran) != 0) return refuse("zran blobs (OCI reference images)");
  if ((expect.features & kBlobTarfs) != 0) return refuse("tarfs blobs");
  if ((expect.features & kBlobEncrypted) != 0) return refuse("encrypted blobs");
  if ((expect.features & kBlobExternal) != 0) return refuse("external blobs");
  if ((expect.features & kBlobSeparate) != 0) return refuse("blobs with separate chunk info");
  if ((expect.features & kBlobBatch) != 0 && (expect.features & kBlobCiV2) == 0) {
    return Error(Code::kDataLoss,
                 fmt::format("blob {}: batches need V2 chunk info", expect.id.value));
  }
  return {};
}

}  // namespace

Result<std::shared_ptr<const BlobMap>> MakeRafsBlobMap(
    std::string array, const CiExpectation& expect, std::shared_ptr<const ChunkDigests> digests) {
  DAVIT_TRY(CheckFeatures(expect));
  auto map = std::make_shared<RafsBlobMap>(std::move(array), expect, std::move(digests));
  DAVIT_TRY(map->Load());
  return map;
}

}  // namespace davit::storage
