#include "rafs/builder/segment.h"

#include <cstring>

namespace davit::rafs {

void Segment::Reset(std::size_t bytes) {
  if (data == nullptr) data = std::make_unique_for_overwrite<std::byte[]>(bytes);
  used = 0;
  last = hashed = compressed = false;
  pieces.clear();
  units.clear();
}

void HashSegment(Segment& segment, DigestAlgorithm digester) {
  for (Piece& piece : segment.pieces) {
    if (piece.zeros) continue;
    const Bytes bytes(segment.data.get() + piece.offset, piece.size);
    piece.digest = Digest::Of(digester, bytes);
    piece.crc32c = Crc32c(bytes);
  }
}

Status CompressSegment(Segment& segment, codec::Compressor& compressor,
                       std::vector<std::byte>& scratch) {
  std::byte* packed = segment.data.get();  // never behind the unit that is read: outputs shrink
  for (StoreUnit& unit : segment.units) {
    const std::size_t bound = compressor.Bound(unit.size);
    if (scratch.size() < bound) scratch.resize(bound);
    DAVIT_TRY_ASSIGN(const std::size_t n,
                     compressor.Compress(Bytes(unit.data, unit.size), scratch));
    std::byte* target = unit.owned != nullptr ? unit.data : packed;
    if (n < unit.size) {
      std::memcpy(target, scratch.data(), n);
      unit.stored = static_cast<std::uint32_t>(n);
    } else {
      std::memmove(target, unit.data, unit.size);
    }
    unit.data = target;
    if (unit.owned == nullptr) packed += unit.stored;
  }
  return {};
}

}  // namespace davit::rafs
