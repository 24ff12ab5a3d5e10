#pragma once
// Sequential reading of blobs without a node cache: for check, unpack and comparisons.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/context.h"
#include "rafs/convert/convert.h"
#include "rafs/metadata/metadata.h"
#include "storage/blob/blob.h"

namespace davit::rafs {

using BlobOpener = std::function<Result<std::shared_ptr<storage::BlobSource>>(const BlobRecord&)>;

/// Decodes and verifies units of one blob, reading ahead in the order of the blob. Keeps one
/// window of compressed bytes and one decoded unit. Not thread-safe.
class BlobReader {
 public:
  static Result<std::unique_ptr<BlobReader>> Open(const Context& ctx, const Metadata& metadata,
                                                  std::uint32_t blob, const BlobOpener& open);
  const storage::BlobMap& map() const { return *map_; }
  /// The verified bytes of a chunk; valid until the next call.
  Result<Bytes> Chunk(const Context& ctx, std::uint32_t index);

 private:
  BlobReader(std::shared_ptr<storage::BlobSource> source,
             std::shared_ptr<const storage::BlobMap> map)
      : source_(std::move(source)), map_(std::move(map)) {}
  Result<Bytes> Compressed(const Context& ctx, const storage::Unit& unit);
  Status Decode(const Context& ctx, std::uint32_t unit);

  std::shared_ptr<storage::BlobSource> source_;
  std::shared_ptr<const storage::BlobMap> map_;
  std::uint64_t window_offset_ = 0;
  std::string window_;
  std::optional<std::uint32_t> unit_;
  std::vector<std::byte> decoded_;
};

/// Reads the content of files through one BlobReader per blob. Not thread-safe.
class FileReader {
 public:
  FileReader(const Metadata& metadata, BlobOpener open);
  /// Streams a file's content, every byte verified.
  Status Read(const Context& ctx, InodeId file, std::uint64_t size, const storage::ByteSink& sink);
  Result<BlobReader*> Blob(const Context& ctx, std::uint32_t blob);

 private:
  Status ReadExtent(const Context& ctx, const Extent& extent, const storage::ByteSink& sink);

  const Metadata& metadata_;
  BlobOpener open_;
  std::vector<std::unique_ptr<BlobReader>> readers_;
};

}  // namespace davit::rafs
