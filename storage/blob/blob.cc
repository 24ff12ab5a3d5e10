#include "storage/blob/blob.h"

#include <fmt/format.h>

#include <algorithm>

namespace davit::storage {

Result<BlobId> BlobId::Parse(std::string_view text) {
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  if (text.size() != 64 || !std::all_of(text.begin(), text.end(), is_hex)) {
    // The text may be hostile and long: only a harmless beginning of it is shown.
    std::string shown;
    for (const char c : text.substr(0, 72)) shown += c >= ' ' && c <= '~' ? c : '?';
    return Error(Code::kInvalidArgument,
                 fmt::format("blob id \"{}\" is not 64 lower-case hex characters", shown))
        .WithHint("ids are the sha256 of the stored object, without \"sha256:\"");
  }
  return BlobId{std::string(text)};
}

Status VerifyChunk(const BlobMap& map, const Chunk& chunk, Bytes data) {
  if (data.size() != chunk.size) {
    return Error(Code::kDataLoss, fmt::format("chunk at {:#x}: {} bytes instead of {}",
                                              chunk.offset, data.size(), chunk.size));
  }
  if (chunk.digest) {
    const Digest actual = Digest::Of(map.digest_algorithm(), data);
    if (actual == *chunk.digest) return {};
    return Error(Code::kDataLoss,
                 fmt::format("chunk at {:#x} (+{}): {} is {}, expected {}", chunk.offset,
                             chunk.size, DigestAlgorithmName(map.digest_algorithm()), actual.Hex(),
                             chunk.digest->Hex()));
  }
  if (chunk.crc32c) {
    const std::uint32_t actual = Crc32c(data);
    if (actual == *chunk.crc32c) return {};
    return Error(Code::kDataLoss,
                 fmt::format("chunk at {:#x} (+{}): crc32c is {:08x}, expected {:08x}",
                             chunk.offset, chunk.size, actual, *chunk.crc32c));
  }
  return Error(
      Code::kFailedPrecondition,
      fmt::format("chunk at {:#x} has neither a digest nor a checksum to verify", chunk.offset));
}

}  // namespace davit::storage
