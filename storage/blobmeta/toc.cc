#include "storage/blobmeta/toc.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "common/codec/codec.h"

namespace davit::storage {
namespace {

// Positions in a tar header.
constexpr std::size_t kSizeField = 124, kSizeLength = 12;
constexpr std::size_t kTimeField = 136, kTimeLength = 12;
constexpr std::size_t kSumField = 148, kSumLength = 8;
constexpr std::size_t kTypeField = 156;
constexpr std::size_t kMagicField = 257;
constexpr std::string_view kGnuMagic{"ustar  \0", 8};
constexpr std::size_t kTarNameLength = 100;
constexpr std::size_t kTocNameLength = 16;

struct RawTocEntry {
  std::uint32_t flags, reserved;
  char name[kTocNameLength];
  std::uint8_t digest[32];
  std::uint64_t offset, stored_size, uncompressed_size;
  std::uint8_t reserved2[48];
};
static_assert(sizeof(RawTocEntry) == kTocEntrySize);

Error Damaged(std::string_view what) {
  return Error(Code::kDataLoss, fmt::format("table of contents: {}", what));
}

/// Text up to the first NUL. Nothing when it is empty or not plain ASCII.
std::optional<std::string> FieldText(std::string_view field) {
  const std::string_view text = field.substr(0, field.find('\0'));
  const auto plain = [](char c) { return c > ' ' && c <= '~' && c != '/'; };
  if (text.empty() || !std::ranges::all_of(text, plain)) return std::nullopt;
  return std::string(text);
}

/// The sum of all bytes with the checksum field taken as blanks.
std::uint32_t TarChecksum(std::string_view header) {
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < header.size(); ++i) {
    const bool in_sum = i >= kSumField && i < kSumField + kSumLength;
    sum += in_sum ? std::uint32_t{' '} : static_cast<unsigned char>(header[i]);
  }
  return sum;
}

/// Octal digits up to a NUL, a blank or the field's end.
std::optional<std::uint64_t> ParseOctal(std::string_view field) {
  std::uint64_t value = 0;
  std::size_t digits = 0;
  for (const char c : field) {
    if (c == '\0' || c == ' ') break;
    if (c < '0' || c > '7') return std::nullopt;
    value = value * 8 + static_cast<std::uint64_t>(c - '0');
    ++digits;
  }
  if (digits == 0) return std::nullopt;
  return value;
}

/// Octal, or GNU's big-endian binary form for 8 GiB and more.
std::optional<std::uint64_t> ParseTarSize(std::string_view field) {
  if (static_cast<unsigned char>(field[0]) != 0x80) return ParseOctal(field);
  std::uint64_t value = 0;
  for (std::size_t i = 1; i < field.size(); ++i) {
    if (value >> 56 != 0) return std::nullopt;
    value = value << 8 | static_cast<unsigned char>(field[i]);
  }
  return value;
}

void PutTarSize(std::uint64_t size, std::string& header) {
  constexpr std::uint64_t kOctalLimit = 1ULL << 33;
  if (size < kOctalLimit) {
    header.replace(kSizeField, kSizeLength - 1, fmt::format("{:011o}", size));
    return;
  }
  header[kSizeField] = '\x80';
  for (std::size_t i = 0; i < sizeof size; ++i) {
    header[kSizeField + kSizeLength - 1 - i] = static_cast<char>(size >> (8 * i) & 0xFF);
  }
}

Result<TocEntry> ParseEntry(Bytes bytes, std::uint64_t sections_end) {
  DAVIT_TRY_ASSIGN(const auto raw, LoadAt<RawTocEntry>(bytes, 0, "table of contents"));
  TocEntry entry;
  const auto name = FieldText({raw.name, kTocNameLength});
  if (!name) return Damaged("an entry has no usable name");
  entry.name = *name;
  if (raw.flags != 1 && raw.flags != 2 && raw.flags != 4) {
    return Damaged(fmt::format("{}: unknown compression {:#x}", entry.name, raw.flags));
  }
  entry.compression = static_cast<TocCompression>(raw.flags);
  std::memcpy(entry.digest.bytes.data(), raw.digest, sizeof raw.digest);
  entry.offset = raw.offset;
  entry.stored_size = raw.stored_size;
  entry.uncompressed_size = raw.uncompressed_size;
  // Some writers note the data section's end as its offset; it always starts at 0.
  if (entry.name == kSectionData) entry.offset = 0;
  const auto end = CheckedAdd(entry.offset, entry.stored_size);
  if (!end || *end > sections_end) {
    return Damaged(fmt::format("{} ({:#x} +{:#x}) leaves the blob", entry.name, entry.offset,
                               entry.stored_size));
  }
  return entry;
}

}  // namespace

const TocEntry* Toc::Find(std::string_view name) const {
  const auto it = std::ranges::find(entries, name, &TocEntry::name);
  return it == entries.end() ? nullptr : &*it;
}

std::string Toc::Encode() const {
  std::string out;
  for (const TocEntry& entry : entries) {
    RawTocEntry raw{};
    raw.flags = static_cast<std::uint32_t>(entry.compression);
    entry.name.copy(raw.name, kTocNameLength);
    std::memcpy(raw.digest, entry.digest.bytes.data(), sizeof raw.digest);
    raw.offset = entry.offset;
    raw.stored_size = entry.stored_size;
    raw.uncompressed_size = entry.uncompressed_size;
    const std::size_t at = out.size();
    out.resize(at + sizeof raw);
    std::memcpy(out.data() + at, &raw, sizeof raw);
  }
  const std::size_t size = out.size();
  return out + EncodeSectionHeader(kSectionToc, size);
}

Result<Toc> Toc::ParseTail(Bytes tail, std::uint64_t blob_size) {
  if (tail.size() < kTarHeaderSize || blob_size < tail.size()) {
    return Error(Code::kNotFound, "the blob has no table of contents");
  }
  const auto header = ParseSectionHeader(tail.last(kTarHeaderSize));
  if (!header || header->name != kSectionToc) {
    return Error(Code::kNotFound, "the blob does not end with a table of contents");
  }
  const Bytes before = tail.first(tail.size() - kTarHeaderSize);
  if (header->size % kTocEntrySize != 0 || header->size > before.size()) {
    return Damaged(fmt::format("its size {} is impossible", header->size));
  }
  const std::uint64_t sections_end = blob_size - kTarHeaderSize - header->size;
  Toc toc;
  Bytes rest = before.last(header->size);
  for (; !rest.empty(); rest = rest.subspan(kTocEntrySize)) {
    DAVIT_TRY_ASSIGN(TocEntry entry, ParseEntry(rest.first(kTocEntrySize), sections_end));
    if (toc.Find(entry.name) != nullptr) return Damaged(entry.name + " is listed twice");
    toc.entries.push_back(std::move(entry));
  }
  return toc;
}

std::string EncodeSectionHeader(std::string_view name, std::uint64_t size) {
  std::string header(kTarHeaderSize, '\0');
  const std::string_view shown = name.substr(0, kTarNameLength - 1);
  header.replace(0, shown.size(), shown);
  PutTarSize(size, header);
  header.replace(kTimeField, kTimeLength - 1, "00000000000");
  header[kTypeField] = '0';
  header.replace(kMagicField, kGnuMagic.size(), kGnuMagic);
  header.replace(kSumField, kSumLength - 1, fmt::format("{:07o}", TarChecksum(header)));
  return header;
}

Result<SectionHeader> ParseSectionHeader(Bytes bytes) {
  if (bytes.size() != kTarHeaderSize) {
    return Error(Code::kDataLoss, "a section header has 512 bytes");
  }
  const std::string_view header = AsText(bytes);
  if (header.substr(kMagicField, 5) != kGnuMagic.substr(0, 5)) {
    return Error(Code::kDataLoss, "not a section header: no tar magic");
  }
  if (ParseOctal(header.substr(kSumField, kSumLength)) != TarChecksum(header)) {
    return Error(Code::kDataLoss, "section header: wrong checksum");
  }
  const auto name = FieldText(header.substr(0, kTarNameLength));
  const auto size = ParseTarSize(header.substr(kSizeField, kSizeLength));
  if (!name || !size) return Error(Code::kDataLoss, "section header: bad name or size");
  return SectionHeader{*name, *size};
}

Result<std::string> ExtractSection(const TocEntry& entry, Bytes stored, std::uint64_t limit) {
  const auto damaged = [&](std::string_view what) {
    return Error(Code::kDataLoss, fmt::format("section {}: {}", entry.name, what));
  };
  if (entry.uncompressed_size > limit) {
    return Error(Code::kResourceExhausted,
                 fmt::format("section {} has {} bytes, at most {} are accepted", entry.name,
                             entry.uncompressed_size, limit));
  }
  if (stored.size() != entry.stored_size) {
    return damaged(fmt::format("{} bytes instead of {}", stored.size(), entry.stored_size));
  }
  auto algorithm = codec::Algorithm::kNone;
  if (entry.compression == TocCompression::kZstd) algorithm = codec::Algorithm::kZstd;
  if (entry.compression == TocCompression::kLz4) algorithm = codec::Algorithm::kLz4Block;
  const bool is_data = entry.name == kSectionData;  // chunks: stored as they are
  if (is_data) algorithm = codec::Algorithm::kNone;
  const std::uint64_t size = is_data ? entry.stored_size : entry.uncompressed_size;
  if (algorithm == codec::Algorithm::kNone && size != stored.size()) {
    return damaged("stored plainly, but its two sizes differ");
  }
  std::string out(size, '\0');
  if (algorithm == codec::Algorithm::kNone) {
    out = AsText(stored);
  } else {
    DAVIT_TRY(codec::Decompress(algorithm, stored, std::as_writable_bytes(std::span(out))));
  }
  if (!is_data && Digest::Of(DigestAlgorithm::kSha256, AsBytes(out)) != entry.digest) {
    return damaged("its content does not match the digest in the table of contents");
  }
  return out;
}

}  // namespace davit::storage
