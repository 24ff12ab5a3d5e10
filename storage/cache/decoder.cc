#include "storage/cache/decoder.h"

#include <algorithm>
#include <cstring>

#include "common/base/log.h"

namespace davit::storage {
namespace {

// Small neighbours are written together: most files of an image are smaller than a page.
constexpr std::size_t kRunBytes = 1U << 20;
constexpr std::uint64_t kMaxPadding = 4096;
constexpr int kRoomTries = 4;

bool DiskFull(const Status& status) {
  return !status.ok() && status.error().code() == Code::kResourceExhausted;
}

// True when the decoded unit can be written as it is: every byte belongs to one of its chunks.
bool IsPlain(const BlobMap& map, std::uint32_t first, std::uint32_t last, const Unit& unit) {
  std::uint64_t in_unit = 0;
  const std::uint64_t base = map.ChunkAt(first).offset;
  for (std::uint32_t i = first; i < last; ++i) {
    const Chunk chunk = map.ChunkAt(i);
    if (chunk.offset_in_unit != in_unit || chunk.offset != base + in_unit) return false;
    if (!CanVerify(chunk)) return false;
    in_unit += chunk.size;
  }
  return in_unit == unit.uncompressed_size;
}

class BatchWriter {
 public:
  explicit BatchWriter(const UnitBatch& batch)
      : batch_(batch), core_(*batch.flight->blob), map_(*core_.loaded()->map) {}

  void Run() {
    for (const UnitBatch::Piece& piece : batch_.units) Add(piece);
    FlushRun();
  }

 private:
  void Add(const UnitBatch::Piece& piece);
  bool MakeRoom(std::size_t size);
  Status DecodeUnit(const UnitBatch::Piece& piece, std::uint32_t first, std::uint32_t last,
                    MutableBytes out);
  void WriteChunks(std::uint32_t unit, std::uint32_t first, std::uint32_t last, Bytes decoded);
  void FlushRun();

  const UnitBatch& batch_;
  BlobCore& core_;
  const BlobMap& map_;
  BufferPool::Buffer scratch_;
  // Decoded and verified, not written yet: [run_begin_, run_end_) of the blob.
  std::uint64_t run_begin_ = 0;
  std::uint64_t run_end_ = 0;
  std::uint32_t next_chunk_ = 0;
  std::vector<std::uint32_t> run_units_;
};

bool BatchWriter::MakeRoom(std::size_t size) {
  if (scratch_ && scratch_.bytes().size() >= size) return true;
  scratch_ = BufferPool::Buffer();
  auto buffer = core_.env().scratch.Acquire(Context{}, std::max(size, kRunBytes), false);
  if (!buffer.ok()) return false;
  scratch_ = *std::move(buffer);
  return true;
}

Status BatchWriter::DecodeUnit(const UnitBatch::Piece& piece, std::uint32_t first,
                               std::uint32_t last, MutableBytes out) {
  DAVIT_TRY(map_.Decode(piece.unit, batch_.buffer.bytes().subspan(piece.offset, piece.size), out));
  for (std::uint32_t i = first; i < last; ++i) {
    const Chunk chunk = map_.ChunkAt(i);
    if (!CanVerify(chunk)) continue;  // not wanted; it came with others of its unit
    DAVIT_TRY_ASSIGN(const Bytes bytes, SubBytes(out, chunk.offset_in_unit, chunk.size, "chunk"));
    DAVIT_TRY(VerifyChunk(map_, chunk, bytes));
  }
  return {};
}

void BatchWriter::Add(const UnitBatch::Piece& piece) {
  const Unit unit = map_.UnitAt(piece.unit);
  const auto [first, last] = map_.ChunksOfUnit(piece.unit);
  if (first == last) {  // nobody can want it
    core_.Publish(*batch_.flight, std::span(&piece.unit, 1));
    return;
  }
  const std::uint64_t base = map_.ChunkAt(first).offset;
  const bool plain = IsPlain(map_, first, last, unit);
  const bool joins = plain && !run_units_.empty() && first == next_chunk_ && base >= run_end_ &&
                     base - run_end_ < kMaxPadding &&
                     base - run_begin_ + unit.uncompressed_size <= scratch_.bytes().size();
  if (!joins) {
    FlushRun();
    run_begin_ = run_end_ = base;
  }
  if (!MakeRoom(unit.uncompressed_size)) {
    core_.Fail(*batch_.flight, std::span(&piece.unit, 1),
               Error(Code::kResourceExhausted, "out of memory"));
    return;
  }
  const MutableBytes out = scratch_.bytes().subspan(base - run_begin_, unit.uncompressed_size);
  if (const Status status = DecodeUnit(piece, first, last, out); !status.ok()) {
    core_.OnDamaged(*batch_.flight, piece.unit, batch_.served_by, status.error());
    return;
  }
  if (!plain) {
    WriteChunks(piece.unit, first, last, out);
    return;
  }
  // Between two chunks the address space holds zeros, not what the scratch held before.
  const MutableBytes padding = scratch_.bytes().subspan(run_end_ - run_begin_, base - run_end_);
  std::fill(padding.begin(), padding.end(), std::byte{0});
  run_end_ = base + unit.uncompressed_size;
  run_units_.push_back(piece.unit);
  next_chunk_ = last;
}

void BatchWriter::WriteChunks(std::uint32_t unit, std::uint32_t first, std::uint32_t last,
                              Bytes decoded) {
  Status status;
  for (std::uint32_t i = first; i < last && status.ok(); ++i) {
    const Chunk chunk = map_.ChunkAt(i);
    if (!CanVerify(chunk)) continue;
    status = WriteVerified(core_, chunk.offset, decoded.subspan(chunk.offset_in_unit, chunk.size));
  }
  if (status.ok()) {
    core_.Publish(*batch_.flight, std::span(&unit, 1));
  } else {
    core_.Fail(*batch_.flight, std::span(&unit, 1), status.error());
  }
}

void BatchWriter::FlushRun() {
  if (run_units_.empty()) return;
  const Status status =
      WriteVerified(core_, run_begin_, scratch_.bytes().first(run_end_ - run_begin_));
  if (status.ok()) {
    core_.Publish(*batch_.flight, run_units_);
  } else {
    core_.Fail(*batch_.flight, run_units_, status.error());
  }
  run_units_.clear();
}

}  // namespace

Status WriteVerified(BlobCore& core, std::uint64_t offset, Bytes data) {
  CacheEnv& env = core.env();
  DAVIT_TRY(core.KeepSize());
  Status status = core.data().WriteAt(offset, data);
  // Others write, too: they may take the room that was made here, or have made some themselves when
  // there is nothing left for this one to evict.
  for (int i = 0; i < kRoomTries && env.make_room && DiskFull(status); ++i) {
    const bool made = env.make_room(data.size());
    status = core.data().WriteAt(offset, data);
    if (!made && i > 0) break;
  }
  if (status.ok()) return {};
  env.counters.write_errors.fetch_add(1);
  Error error = std::move(status).error().WithContext("cache blob " + core.id().value);
  if (error.code() == Code::kResourceExhausted) {
    return std::move(error).WithHint("free space on the cache's disk or lower its budget");
  }
  return std::move(error).WithCode(Code::kInternal).WithHint("check the cache's disk");
}

void DecodeBatch(const UnitBatch& batch) { BatchWriter(batch).Run(); }

}  // namespace davit::storage
