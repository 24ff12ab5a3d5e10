#include "storage/blobmeta/ci.h"

#include <fmt/format.h>

#include "storage/blobmeta/ci_record.h"

namespace davit::storage {
namespace {

constexpr std::size_t kSecondMagicOffset = kCiHeaderSize - sizeof(std::uint32_t);
/// No array of real records shrinks this much: it stops a few bytes from claiming a gigabyte.
constexpr std::uint64_t kMaxCiRatio = 1024;

Error Damaged(const CiExpectation& expect, std::string_view what) {
  return Error(Code::kDataLoss, fmt::format("chunk info of blob {}: {}", expect.id.value, what));
}

template <class A, class B>
Status CheckField(const CiExpectation& expect, std::string_view name, A found, B wanted) {
  if (found == wanted) return {};
  return Damaged(expect, fmt::format("{} is {}, the bootstrap says {}", name, found, wanted));
}

/// The numbers in `expect` come from a bootstrap, which may be as hostile as the blob.
Status CheckExpectation(const CiExpectation& e) {
  constexpr std::uint64_t kMaxChunks = 1ULL << 24;
  if (e.chunk_count > kMaxChunks) {
    return Damaged(e, fmt::format("{} chunks, at most {} are possible", e.chunk_count, kMaxChunks));
  }
  const std::uint64_t limit = kMaxChunks * (kCiRecordSizeV2 + kBatchContextSize);
  if (e.ci_uncompressed_size > limit || e.ci_compressed_size > e.ci_uncompressed_size ||
      e.ci_uncompressed_size / kMaxCiRatio > e.ci_compressed_size) {
    return Damaged(e, fmt::format("impossible sizes {} (stored) and {}", e.ci_compressed_size,
                                  e.ci_uncompressed_size));
  }
  return {};
}

Status CheckHeader(Bytes block, const CiExpectation& e) {
  DAVIT_TRY_ASSIGN(const auto header, LoadAt<CiHeader>(block, 0, "chunk info header"));
  DAVIT_TRY_ASSIGN(const auto second,
                   LoadAt<std::uint32_t>(block, kSecondMagicOffset, "chunk info header"));
  if (header.magic != kCiMagic || second != kCiMagic) {
    return Damaged(e, "the header's magic numbers are missing");
  }
  if ((e.features & kBlobChunkDict) == 0) {
    DAVIT_TRY(CheckField(e, "number of records", header.record_count, e.chunk_count));
  } else if ((e.features & kBlobBatch) != 0 && header.record_count != e.chunk_count) {
    // Nothing but the header tells records from batch contexts then, and nobody writes this.
    return Error(Code::kUnsupported, fmt::format("blob {}: a chunk dictionary with batches whose "
                                                 "chunk count is not that of its blob",
                                                 e.id.value));
  }
  DAVIT_TRY(
      CheckField(e, "compressor", header.compressor, static_cast<std::uint32_t>(e.ci_compressor)));
  DAVIT_TRY(CheckField(e, "offset", header.offset, e.ci_offset));
  DAVIT_TRY(CheckField(e, "stored size", header.compressed_size, e.ci_compressed_size));
  DAVIT_TRY(CheckField(e, "size", header.uncompressed_size, e.ci_uncompressed_size));
  if ((e.features & kBlobBatch) != 0) {
    const std::uint64_t records = std::uint64_t{header.record_count} * kCiRecordSizeV2;
    const std::uint64_t contexts = std::uint64_t{header.context_count} * kBatchContextSize;
    DAVIT_TRY(CheckField(e, "batch area offset", header.area_offset, records));
    DAVIT_TRY(CheckField(e, "batch area size", header.area_size, contexts));
    DAVIT_TRY(CheckField(e, "records and batches", records + contexts, e.ci_uncompressed_size));
  }
  return {};
}

}  // namespace

Result<std::string> DecodeStoredCi(Bytes stored, const CiExpectation& expect) {
  DAVIT_TRY(CheckExpectation(expect));
  if (stored.size() != expect.ci_compressed_size + kCiHeaderSize) {
    return Damaged(expect, fmt::format("{} bytes instead of {}", stored.size(),
                                       expect.ci_compressed_size + kCiHeaderSize));
  }
  const Bytes array = stored.first(expect.ci_compressed_size);
  DAVIT_TRY(CheckHeader(stored.subspan(array.size()), expect));
  std::string out(expect.ci_uncompressed_size, '\0');
  if (out.empty()) return out;
  auto status =
      codec::Decompress(expect.ci_compressor, array, std::as_writable_bytes(std::span(out)));
  if (!status) {
    return std::move(status).error().WithContext("chunk info of blob " + expect.id.value);
  }
  return out;
}

Result<std::string> DecodeLocalCi(Bytes file, const CiExpectation& expect) {
  DAVIT_TRY(CheckExpectation(expect));
  const std::uint64_t wanted = AlignUp(expect.ci_uncompressed_size, kCiHeaderSize) + kCiHeaderSize;
  if (file.size() != wanted) {
    return Damaged(expect, fmt::format("the file has {} bytes instead of {}", file.size(), wanted));
  }
  DAVIT_TRY(CheckHeader(file.last(kCiHeaderSize), expect));
  return std::string(AsText(file.first(expect.ci_uncompressed_size)));
}

std::string EncodeCiHeader(const CiHeader& header) {
  CiHeader fixed = header;
  fixed.magic = kCiMagic;
  fixed.pad = 0;
  std::string out(kCiHeaderSize, '\0');
  std::memcpy(out.data(), &fixed, sizeof fixed);
  std::memcpy(out.data() + kSecondMagicOffset, &kCiMagic, sizeof kCiMagic);
  return out;
}

std::string EncodeLocalCi(Bytes array, const CiHeader& header) {
  std::string out(AsText(array));
  out.resize(AlignUp(out.size(), kCiHeaderSize), '\0');
  out += EncodeCiHeader(header);
  return out;
}

}  // namespace davit::storage
