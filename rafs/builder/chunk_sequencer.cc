#include "rafs/builder/chunk_sequencer.h"

#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "rafs/layout/v6.h"

namespace davit::rafs {
namespace {

constexpr std::uint32_t kMaxChunks = v6::kMaxChunksPerBlob - 2;  // where other builders stop, too
constexpr std::uint64_t kMaxUncompressed = 1ULL << 44;
constexpr std::uint64_t kMaxCompressed = 1ULL << 40;

Error Limit(std::string what, std::string_view hint) {
  return Error(Code::kInvalidArgument, std::move(what)).WithHint(hint);
}

}  // namespace

Status ChunkSequencer::Sequence(Segment& segment) {
  for (const Piece& piece : segment.pieces) {
    if (const auto known = dict_.Find(piece.digest, piece.size)) {
      piece.file->chunks.push_back(*known);
      continue;
    }
    DAVIT_TRY(Store(segment, piece));
  }
  if (segment.last) FlushBatch(segment);
  return {};
}

Status ChunkSequencer::Store(Segment& segment, const Piece& piece) {
  if (chunks_.size() >= kMaxChunks) {
    return Limit(fmt::format("the blob would have more than {} chunks", kMaxChunks),
                 "use a larger chunk size or split the source");
  }
  const std::uint64_t end = uncompressed_size_ + AlignUp(piece.size, v6::kBlockSize);
  if (end > kMaxUncompressed) {
    return Limit(fmt::format("the blob would hold more than {} bytes of data", kMaxUncompressed),
                 "split the source into several layers");
  }
  const ChunkRef ref{blob_index_, static_cast<std::uint32_t>(chunks_.size())};
  dict_.Add(piece.digest, piece.size, ref);
  piece.file->chunks.push_back(ref);

  StoredChunk chunk{.digest = piece.digest, .size = piece.size, .crc32c = piece.crc32c};
  chunk.record.uncompressed_offset = uncompressed_size_;
  chunk.record.uncompressed_size = piece.size;
  uncompressed_size_ = end;

  if (piece.single && !piece.zeros && piece.size < options_.batch_size / 2) {
    AddToBatch(segment, piece, chunk.record);
    unit_of_chunk_.push_back(0);  // known when the batch ends
  } else {
    FlushBatch(segment);
    StoreUnit unit{.size = piece.size, .stored = piece.size};
    if (piece.zeros) {
      unit.owned = std::make_unique<std::byte[]>(piece.size);  // zeroed
      unit.data = unit.owned.get();
    } else {
      unit.data = segment.data.get() + piece.offset;
    }
    segment.units.push_back(std::move(unit));
    if (options_.batch_size != 0) unit_of_chunk_.push_back(units_);
    ++units_;
  }
  chunks_.push_back(chunk);
  return {};
}

void ChunkSequencer::AddToBatch(Segment& segment, const Piece& piece, storage::CiRecord& record) {
  if (batch_used_ + piece.size >= options_.batch_size) FlushBatch(segment);
  if (batch_ == nullptr) {
    batch_ = std::make_unique_for_overwrite<std::byte[]>(options_.batch_size);
  }
  std::memcpy(batch_.get() + batch_used_, segment.data.get() + piece.offset, piece.size);
  record.batch = record.compressed = true;
  record.batch_index = batch_count_;
  record.offset_in_batch = batch_used_;
  batch_used_ += piece.size;
  batch_members_.push_back(static_cast<std::uint32_t>(chunks_.size()));
}

void ChunkSequencer::FlushBatch(Segment& segment) {
  if (batch_used_ == 0) return;
  StoreUnit unit{.size = batch_used_, .stored = batch_used_, .owned = std::move(batch_)};
  unit.data = unit.owned.get();
  segment.units.push_back(std::move(unit));
  for (const std::uint32_t member : batch_members_) unit_of_chunk_[member] = units_;
  unit_of_batch_.push_back(units_);
  ++units_;
  ++batch_count_;
  batch_members_.clear();
  batch_used_ = 0;
}

Status ChunkSequencer::Write(Segment& segment, BlobFile& out) {
  std::size_t i = 0;
  std::uint64_t offset = out.size();
  while (i < segment.units.size()) {
    const std::byte* start = segment.units[i].data;
    std::size_t length = 0;
    // Neighbours in memory go out together.
    do {
      const StoreUnit& unit = segment.units[i];
      placed_.push_back({offset + length, unit.stored, unit.size});
      length += unit.stored;
      ++i;
    } while (i < segment.units.size() && segment.units[i].data == start + length);
    DAVIT_TRY(out.Append(Bytes(start, length)));
    offset += length;
  }
  segment.units.clear();  // frees batches
  if (offset > kMaxCompressed) {
    return Limit(fmt::format("the blob would be larger than {} bytes", kMaxCompressed),
                 "split the source into several layers");
  }
  return {};
}

ChunkOutput ChunkSequencer::TakeOutput() {
  ChunkOutput output;
  for (std::size_t i = 0; i < chunks_.size(); ++i) {
    storage::CiRecord& record = chunks_[i].record;
    const Placed& placed = placed_[unit_of_chunk_.empty() ? i : unit_of_chunk_[i]];
    record.compressed_offset = placed.offset;
    if (!record.batch) {
      record.compressed_size = placed.stored;
      record.compressed = placed.stored != placed.size;
    }
  }
  for (const std::uint32_t unit : unit_of_batch_) {
    output.batches.push_back({placed_[unit].stored, placed_[unit].size});
  }
  if (!placed_.empty()) output.data_size = placed_.back().offset + placed_.back().stored;
  output.chunks = std::move(chunks_);
  output.uncompressed_size = uncompressed_size_;
  return output;
}

}  // namespace davit::rafs
