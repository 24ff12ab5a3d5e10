// Chunk info in all forms, and the units that it describes: both are a registry's bytes that are
// decoded before any digest is compared. The input starts with what a bootstrap would say (it may
// be hostile as well), then comes the chunk info, taken for the stored form, the local form and the
// bare array. The upper half of the head's last word is how many bytes at the end are the blob's
// data.

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <vector>

#include "storage/blobmeta/ci.h"

namespace {

using namespace davit;           // NOLINT(google-build-using-namespace): a single function follows
using namespace davit::storage;  // NOLINT(google-build-using-namespace)

struct Head {
  std::uint32_t features, chunk_count, ci_compressed_size, ci_uncompressed_size;
  std::uint64_t ci_offset, uncompressed_size, data_size;
  std::uint32_t chunk_size, compressors;
};

void require(bool promise) {
  if (!promise) std::abort();
}

using Piece = std::vector<std::byte>;  // of just its size: ASan sees a step outside

std::optional<Piece> Decoded(const BlobMap& map, std::uint32_t unit, const Piece& stored,
                             std::byte before) {
  Piece out(map.UnitAt(unit).uncompressed_size, before);
  const Status status = map.Decode(unit, stored, out);
  require(status.ok() || status.error().code() == Code::kDataLoss);
  return status.ok() ? std::optional(std::move(out)) : std::nullopt;
}

/// A few units, each as often as a cache may: what comes out depends on nothing but the input.
void DecodeUnits(const BlobMap& map, Bytes data) {
  constexpr std::uint32_t kUnits = 8;
  constexpr std::uint32_t kBytes = 1U << 20;  // larger ones only take longer
  struct Known {
    std::uint32_t unit;
    Piece stored;
    std::optional<Piece> out;
  };
  std::vector<Known> known;
  for (std::uint32_t i = 0; i < map.unit_count() && known.size() < kUnits; ++i) {
    const Unit u = map.UnitAt(i);
    if (u.compressed_offset + u.compressed_size > data.size()) break;
    if (u.uncompressed_size > kBytes) continue;
    const Bytes stored = data.subspan(u.compressed_offset, u.compressed_size);
    Known k{i, Piece(stored.begin(), stored.end()), {}};
    k.out = Decoded(map, i, k.stored, std::byte{0});
    known.push_back(std::move(k));
    Piece other(u.uncompressed_size + 1);
    require(!map.Decode(i, stored, other).ok());
    require(
        !map.Decode(i, stored.first(stored.size() - 1), MutableBytes(other).first(other.size() - 1))
             .ok());
  }
  // Decoders are kept from one unit to the next, and a damaged one leaves nothing behind; every
  // byte of a decoded unit has been written.
  for (auto k = known.rbegin(); k != known.rend(); ++k)
    require(Decoded(map, k->unit, k->stored, std::byte{0xA5}) == k->out);
}

/// The promises of BlobMap; breaking one is a finding.
void Use(const BlobMap& map, Bytes data) {
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
  DecodeUnits(map, data);
}

}  // namespace

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  Head head;
  if (size < sizeof head) return 0;
  std::memcpy(&head, data, sizeof head);
  const Bytes all = std::as_bytes(std::span(data, size)).subspan(sizeof head);
  const Bytes units = all.last(std::min<std::size_t>(head.compressors >> 16, all.size()));
  const Bytes rest = all.first(all.size() - units.size());
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
    if (map) Use(**map, units);
  }
  return 0;
}
