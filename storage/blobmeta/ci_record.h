#pragma once
// The bit layout of single CI records; internal to storage/blobmeta and its tests. Layout:
// docs/formats/rafs.md, "CI records".

#include <cstddef>
#include <cstdint>

#include "common/base/bytes.h"
#include "storage/blobmeta/ci.h"

namespace davit::storage {

inline constexpr std::size_t kCiRecordSizeV1 = 16;
inline constexpr std::size_t kCiRecordSizeV2 = 24;
inline constexpr std::size_t kBatchContextSize = 40;

/// Flags of V2 records.
enum CiFlag : std::uint8_t {
  kCiCompressed = 0x01,
  kCiZran = 0x02,
  kCiBatch = 0x04,
  kCiEncrypted = 0x08,
  kCiHasCrc32c = 0x10,
};

/// A decoded record with its raw flags (V1: only kCiCompressed).
struct CiView {
  CiRecord record;
  std::uint8_t flags = 0;
};

/// `at` holds at least the record's size.
CiView DecodeRecordV1(Bytes at);
CiView DecodeRecordV2(Bytes at);
/// kInvalidArgument when a field does not fit its bits. Appends to `out`.
Status AppendRecordV1(const CiRecord& record, std::string& out);
Status AppendRecordV2(const CiRecord& record, std::string& out);

}  // namespace davit::storage
