#include "storage/blobmeta/ci_record.h"

#include <fmt/format.h>

#include <array>

namespace davit::storage {
namespace {

constexpr std::uint64_t kMaxUncompressedOffset = 1ULL << 44;
constexpr std::uint64_t kMaxCompressedOffset = 1ULL << 40;
constexpr std::uint32_t kMaxSize = 1U << 24;
constexpr std::uint32_t kAlign = 4096;

template <std::size_t N>
std::array<std::uint64_t, N> LoadWords(Bytes at) {
  std::array<std::uint64_t, N> words;
  std::memcpy(words.data(), at.data(), sizeof words);
  return words;
}

template <std::size_t N>
void AppendWords(const std::array<std::uint64_t, N>& words, std::string& out) {
  const std::size_t at = out.size();
  out.resize(at + sizeof words);
  std::memcpy(out.data() + at, words.data(), sizeof words);
}

Status CheckCommon(const CiRecord& r) {
  if (r.uncompressed_size == 0 || r.uncompressed_size > kMaxSize) {
    return Error(Code::kInvalidArgument,
                 fmt::format("chunk size {} is not in 1..16 MiB", r.uncompressed_size));
  }
  if (r.uncompressed_offset % kAlign != 0 || r.uncompressed_offset >= kMaxUncompressedOffset) {
    return Error(Code::kInvalidArgument,
                 fmt::format("chunk offset {:#x} is not 4 KiB aligned or beyond 16 TiB",
                             r.uncompressed_offset));
  }
  if (r.compressed_offset >= kMaxCompressedOffset) {
    return Error(Code::kInvalidArgument,
                 fmt::format("compressed offset {:#x} is beyond 1 TiB", r.compressed_offset));
  }
  return {};
}

}  // namespace

CiView DecodeRecordV1(Bytes at) {
  const auto [w0, w1] = LoadWords<2>(at);
  CiView view;
  CiRecord& r = view.record;
  r.uncompressed_offset = w0 & 0xFFF'FFFF'F000;
  r.uncompressed_size = static_cast<std::uint32_t>((w0 >> 44) | (((w0 >> 8) & 0xF) << 20)) + 1;
  r.compressed_offset = w1 & 0xFF'FFFF'FFFF;
  r.compressed_size = static_cast<std::uint32_t>((w1 >> 44) | (((w1 >> 40) & 0xF) << 20)) + 1;
  r.compressed = r.compressed_size != r.uncompressed_size;
  view.flags = r.compressed ? kCiCompressed : 0;
  return view;
}

CiView DecodeRecordV2(Bytes at) {
  const auto [w0, w1, w2] = LoadWords<3>(at);
  CiView view;
  CiRecord& r = view.record;
  view.flags = static_cast<std::uint8_t>(w0 >> 56);
  r.uncompressed_offset = (w0 & 0xFFFF'FFFF) << 12;
  r.uncompressed_size = static_cast<std::uint32_t>((w0 >> 32) & 0xFF'FFFF) + 1;
  r.compressed_offset = w1 & 0xFF'FFFF'FFFF;
  r.compressed_size = static_cast<std::uint32_t>(w1 >> 40);
  r.compressed = (view.flags & kCiCompressed) != 0;
  r.batch = (view.flags & kCiBatch) != 0;
  if (r.batch) {
    r.batch_index = static_cast<std::uint32_t>(w2 >> 32);
    r.offset_in_batch = static_cast<std::uint32_t>(w2);
  } else if ((view.flags & kCiHasCrc32c) != 0) {
    r.crc32c = static_cast<std::uint32_t>(w2);
  }
  return view;
}

Status AppendRecordV1(const CiRecord& r, std::string& out) {
  DAVIT_TRY(CheckCommon(r));
  if (r.batch || r.crc32c) {
    return Error(Code::kInvalidArgument, "batch members and checksums need V2 records");
  }
  if (r.compressed_size == 0 || r.compressed_size > kMaxSize) {
    return Error(Code::kInvalidArgument,
                 fmt::format("compressed chunk size {} is not in 1..16 MiB", r.compressed_size));
  }
  // A V1 record says "compressed" by its sizes being different, so it cannot say otherwise.
  if (r.compressed != (r.compressed_size != r.uncompressed_size)) {
    return Error(Code::kInvalidArgument, "a V1 record is compressed exactly when its sizes differ");
  }
  const std::uint64_t size = r.uncompressed_size - 1;
  const std::uint64_t stored = r.compressed_size - 1;
  AppendWords<2>({((size & 0xF'FFFF) << 44) | r.uncompressed_offset | ((size >> 20) << 8),
                  ((stored & 0xF'FFFF) << 44) | ((stored >> 20) << 40) | r.compressed_offset},
                 out);
  return {};
}

Status AppendRecordV2(const CiRecord& r, std::string& out) {
  DAVIT_TRY(CheckCommon(r));
  if (r.compressed_size >= kMaxSize || (r.compressed_size == 0) != r.batch) {
    return Error(
        Code::kInvalidArgument,
        fmt::format("compressed chunk size {} does not fit a V2 record", r.compressed_size));
  }
  std::uint64_t flags = r.compressed || r.batch ? kCiCompressed : 0;
  std::uint64_t extra = 0;
  if (r.batch) {
    flags |= kCiBatch;
    extra = (std::uint64_t{r.batch_index} << 32) | r.offset_in_batch;
  } else if (r.crc32c) {
    flags |= kCiHasCrc32c;
    extra = *r.crc32c;
  }
  AppendWords<3>({(flags << 56) | (std::uint64_t{r.uncompressed_size - 1} << 32) |
                      (r.uncompressed_offset >> 12),
                  (std::uint64_t{r.compressed_size} << 40) | r.compressed_offset, extra},
                 out);
  return {};
}

Result<std::string> EncodeCiArray(const std::vector<CiRecord>& records,
                                  const std::vector<BatchContext>& batches) {
  // Only a batch needs V2; a writer that wants checksums in the array may still give none here.
  const bool v2 = !batches.empty();
  std::string out;
  out.reserve(records.size() * (v2 ? kCiRecordSizeV2 : kCiRecordSizeV1) +
              batches.size() * kBatchContextSize);
  for (std::size_t i = 0; i < records.size(); ++i) {
    const CiRecord& r = records[i];
    if (r.batch && r.batch_index >= batches.size()) {
      return Error(Code::kInvalidArgument,
                   fmt::format("chunk {} is in batch {} of {}", i, r.batch_index, batches.size()));
    }
    auto status = v2 ? AppendRecordV2(r, out) : AppendRecordV1(r, out);
    if (!status) return std::move(status).error().WithContext(fmt::format("chunk {}", i));
  }
  for (const BatchContext& batch : batches) {
    std::array<std::uint64_t, kBatchContextSize / 8> words{};
    words[0] = (std::uint64_t{batch.uncompressed_size} << 32) | batch.compressed_size;
    AppendWords(words, out);
  }
  return out;
}

}  // namespace davit::storage
