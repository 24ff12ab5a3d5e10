#pragma once
// The ordered part of the chunk pipeline: decides which chunks are new, gives them their index and
// place, gathers small ones into batches.

#include <cstdint>
#include <memory>
#include <vector>

#include "rafs/builder/builder.h"
#include "rafs/builder/pipeline.h"
#include "rafs/builder/segment.h"

namespace davit::rafs {

/// Sequence() and Write() see the segments in order, each called by one thread at a time; one of
/// each may run at the same time (they share no data).
class ChunkSequencer {
 public:
  ChunkSequencer(const BuildOptions& options, ChunkDict& dict, std::uint32_t blob_index)
      : options_(options), dict_(dict), blob_index_(blob_index) {}

  /// Appends references to the files and fills segment.units.
  Status Sequence(Segment& segment);
  /// Writes the compressed units.
  Status Write(Segment& segment, BlobFile& out);
  /// After the last Write.
  ChunkOutput TakeOutput();

 private:
  struct Placed {
    std::uint64_t offset;
    std::uint32_t stored, size;
  };

  Status Store(Segment& segment, const Piece& piece);
  void AddToBatch(Segment& segment, const Piece& piece, storage::CiRecord& record);
  void FlushBatch(Segment& segment);

  const BuildOptions& options_;
  ChunkDict& dict_;
  const std::uint32_t blob_index_;

  // Of Sequence().
  std::vector<StoredChunk> chunks_;
  std::vector<std::uint32_t> unit_of_chunk_;  // only with batches; else unit i is chunk i
  std::uint32_t units_ = 0;
  std::uint64_t uncompressed_size_ = 0;
  std::unique_ptr<std::byte[]> batch_;
  std::uint32_t batch_used_ = 0, batch_count_ = 0;
  std::vector<std::uint32_t> batch_members_;
  std::vector<std::uint32_t> unit_of_batch_;

  // Of Write().
  std::vector<Placed> placed_;  // by unit
};

}  // namespace davit::rafs
