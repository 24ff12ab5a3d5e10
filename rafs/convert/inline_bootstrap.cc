#include <fmt/format.h>

#include <algorithm>

#include "rafs/convert/convert.h"
#include "storage/blobmeta/toc.h"

namespace davit::rafs {
namespace {

constexpr std::uint64_t kMaxBootstrapBytes = 4ULL << 30;
constexpr std::uint64_t kTailBytes = 4096;

Result<std::string> ReadRange(const Context& ctx, storage::BlobSource& blob, ByteRange range) {
  std::string out;
  storage::SourceRead how;
  DAVIT_TRY(blob.Read(ctx, range, how, [&](Bytes data) -> Status {
    out += AsText(data);
    return {};
  }));
  return out;
}

}  // namespace

Result<std::string> ReadInlineBootstrap(const Context& ctx, storage::BlobSource& blob) {
  DAVIT_TRY_ASSIGN(const std::uint64_t size, blob.Size(ctx));
  const std::uint64_t tail_size = std::min(size, kTailBytes);
  DAVIT_TRY_ASSIGN(const std::string tail, ReadRange(ctx, blob, {size - tail_size, tail_size}));
  const auto toc = storage::Toc::ParseTail(AsBytes(tail), size);
  if (toc.ok()) {
    const storage::TocEntry* entry = toc->Find(storage::kSectionBootstrap);
    if (entry == nullptr) {
      return Error(Code::kNotFound, blob.Describe() + " holds no bootstrap")
          .WithHint("it was built without an inline bootstrap");
    }
    if (entry->stored_size > kMaxBootstrapBytes) {
      return Error(Code::kResourceExhausted, blob.Describe() + ": bootstrap over 4 GiB");
    }
    DAVIT_TRY_ASSIGN(const std::string stored,
                     ReadRange(ctx, blob, {entry->offset, entry->stored_size}));
    return storage::ExtractSection(*entry, AsBytes(stored), kMaxBootstrapBytes);
  }
  if (toc.error().code() != Code::kNotFound) return toc.error();
  // Without a TOC the bootstrap, uncompressed, is the last section, its header the last bytes.
  if (tail.size() >= storage::kTarHeaderSize) {
    const auto header =
        storage::ParseSectionHeader(AsBytes(tail).subspan(tail.size() - storage::kTarHeaderSize));
    if (header.ok() && header->name == storage::kSectionBootstrap &&
        header->size <= std::min(size - storage::kTarHeaderSize, kMaxBootstrapBytes)) {
      return ReadRange(ctx, blob, {size - storage::kTarHeaderSize - header->size, header->size});
    }
  }
  return Error(Code::kNotFound, blob.Describe() + " ends with neither a TOC nor a bootstrap")
      .WithHint("name a layer blob that was built with an inline bootstrap");
}

}  // namespace davit::rafs
