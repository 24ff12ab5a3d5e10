#pragma once
// Table of contents and the tar headers that name the sections of a RAFS blob; read backwards
// from the blob's end. Layout: docs/formats/rafs.md, "Tar headers and TOC".

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/digest/digest.h"

namespace davit::storage {

inline constexpr std::size_t kTarHeaderSize = 512;
inline constexpr std::size_t kTocEntrySize = 128;
inline constexpr std::string_view kSectionData = "image.blob";
inline constexpr std::string_view kSectionCi = "blob.meta";
inline constexpr std::string_view kSectionCiHeader = "blob.meta.header";
inline constexpr std::string_view kSectionDigest = "blob.digest";
inline constexpr std::string_view kSectionBootstrap = "image.boot";
inline constexpr std::string_view kSectionToc = "rafs.blob.toc";

/// Note: not the numbering of codec::Algorithm.
enum class TocCompression : std::uint32_t { kNone = 1, kZstd = 2, kLz4 = 4 };

struct TocEntry {
  TocCompression compression = TocCompression::kNone;
  std::string name;
  Digest digest;  // sha256 of the uncompressed section; see the format document for image.blob
  std::uint64_t offset = 0;
  std::uint64_t stored_size = 0;
  std::uint64_t uncompressed_size = 0;
};

struct Toc {
  std::vector<TocEntry> entries;
  const TocEntry* Find(std::string_view name) const;
  /// The entries followed by their tar header; the last bytes of a blob.
  std::string Encode() const;
  /// From the end of a blob: `tail` is its last bytes (4096, or all if it is shorter), `blob_size`
  /// the whole size. kNotFound when the blob ends without a TOC header, kDataLoss when damaged.
  static Result<Toc> ParseTail(Bytes tail, std::uint64_t blob_size);
};

/// The 512-byte GNU header that stands behind a section.
std::string EncodeSectionHeader(std::string_view name, std::uint64_t size);
struct SectionHeader {
  std::string name;
  std::uint64_t size = 0;
};
/// kDataLoss when it is not such a header (magic, checksum, size).
Result<SectionHeader> ParseSectionHeader(Bytes header);

/// The uncompressed bytes of a section, checked against the entry's size and digest (not for
/// image.blob). kResourceExhausted above `limit`.
Result<std::string> ExtractSection(const TocEntry& entry, Bytes stored, std::uint64_t limit);

}  // namespace davit::storage
