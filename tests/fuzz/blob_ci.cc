// Chunk info in all forms. The input starts with what a bootstrap would say (it may be hostile as
// well), the rest is the stored form, the local form and the bare array.

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>

#include "storage/blobmeta/ci.h"

namespace {

using namespace davit;           // NOLINT(google-build-using-namespace): a single function follows
using namespace davit::storage;  // NOLINT(google-build-using-namespace)

struct Head {
  std::uint32_t features, chunk_count, ci_compressed_size, ci_uncompressed_size;
  std::uint64_t ci_offset, uncompressed_size, data_size;
  std::uint32_t chunk_size, compressors;
};

/// The promises of BlobMap; breaking one is a finding.
void Use(const BlobMap& map) {
  const auto require = [](bool promise) {
    if (!promise) std::abort();
  };
  std::uint64_t end = 0;
  for (std::uint32_t i = 0; i < map.chunk_count(); ++i) {
    const Chunk c = map.ChunkAt(i);
    require(c.size > 0 && c.offset >= end);
    end = c.offset + c.size;
    require(end <= map.uncompressed_size() && c.unit < map.unit_count());
    const Unit u = map.UnitAt(c.unit);
    require(u.compressed_size > 0 && u.uncompressed_size <= kMaxUnitBytes);
    require(std::uint64_t{c.offset_in_unit} + c.size <= u.uncompressed_size);
    require(u.compressed_offset + u.compressed_size <= map.compressed_size());
    require(map.FindChunk(c.offset) == i && map.FindChunk(end - 1) == i);
    const auto [first, last] = map.ChunksOfUnit(c.unit);
    require(first <= i && i < last);
  }
  require(map.FindChunk(~0ULL) == map.chunk_count());
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Head head;
  if (size < sizeof head) return 0;
  std::memcpy(&head, data, sizeof head);
  const Bytes rest = std::as_bytes(std::span(data, size)).subspan(sizeof head);
  CiExpectation e;
  e.id = BlobId{std::string(64, 'c')};
  e.features = head.features;
  e.chunk_count = head.chunk_count;
  e.compressor = static_cast<codec::Algorithm>(head.compressors & 3);
  e.ci_compressor = static_cast<codec::Algorithm>(head.compressors >> 2 & 3);
  e.ci_offset = head.ci_offset;
  e.ci_compressed_size = head.ci_compressed_size;
  e.ci_uncompressed_size = head.ci_uncompressed_size;
  e.uncompressed_size = head.uncompressed_size;
  e.data_size = head.data_size;
  e.chunk_size = head.chunk_size;
  for (auto array : {DecodeStoredCi(rest, e), DecodeLocalCi(rest, e),
                     Result<std::string>(std::string(AsText(rest)))}) {
    if (!array) continue;
    const auto map = MakeRafsBlobMap(*std::move(array), e, nullptr);
    if (map) Use(**map);
  }
  return 0;
}
