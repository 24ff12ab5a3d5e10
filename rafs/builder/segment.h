#pragma once
// The work item of the chunk pipeline: a buffer of about a megabyte with the chunks of one large
// or many small files. All stages before and after the ordered one are functions of a segment.

#include <cstdint>
#include <memory>
#include <vector>

#include "common/base/bytes.h"
#include "common/codec/codec.h"
#include "common/digest/digest.h"
#include "rafs/builder/tree.h"

namespace davit::rafs {

/// A chunk of a file, on its way.
struct Piece {
  TreeInode* file = nullptr;
  std::uint32_t offset = 0;  // in the segment's buffer
  std::uint32_t size = 0;
  bool single = false;  // the only chunk of its file
  bool zeros = false;   // no bytes in the buffer, digest known
  std::uint32_t crc32c = 0;
  Digest digest;
};

/// Bytes that are compressed together and stored: a chunk or a batch.
struct StoreUnit {
  std::byte* data = nullptr;
  std::uint32_t size = 0;
  std::uint32_t stored = 0;            // bytes at `data` after compression; == size: as they are
  std::unique_ptr<std::byte[]> owned;  // holds `data` when it is not in the segment's buffer
};

struct Segment {
  static constexpr std::size_t kMaxPieces = 8192;
  std::unique_ptr<std::byte[]> data;
  std::uint32_t used = 0;
  bool last = false;
  bool hashed = false, compressed = false;  // guarded by the pipeline's mutex
  std::vector<Piece> pieces;
  std::vector<StoreUnit> units;  // in order; set by the sequencer

  void Reset(std::size_t bytes);
};

/// Digest and CRC of every piece.
void HashSegment(Segment& segment, DigestAlgorithm digester);

/// Compresses every unit in place; those that do not shrink stay as they are. What lies in the
/// segment's buffer is moved together, so that it is written in one piece.
Status CompressSegment(Segment& segment, codec::Compressor& compressor,
                       std::vector<std::byte>& scratch);

}  // namespace davit::rafs
