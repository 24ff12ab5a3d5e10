// The end of a blob: table of contents, its header, and the sections it leads to.

#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "storage/blobmeta/toc.h"

// NOLINTNEXTLINE(readability-identifier-naming): libFuzzer's name
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const davit::Bytes blob = std::as_bytes(std::span(data, size));
  if (size >= davit::storage::kTarHeaderSize) {
    static_cast<void>(
        davit::storage::ParseSectionHeader(blob.first(davit::storage::kTarHeaderSize)));
  }
  const auto toc = davit::storage::Toc::ParseTail(blob, size);
  if (!toc) return 0;
  for (const auto& entry : toc->entries) {
    if (entry.offset > size || entry.stored_size > size - entry.offset) std::abort();
    static_cast<void>(davit::storage::ExtractSection(
        entry, blob.subspan(entry.offset, entry.stored_size), 1U << 20));
  }
  return 0;
}
