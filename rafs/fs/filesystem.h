#pragma once
// A mounted image without a kernel: tree and content together, POSIX-like and read-only.

#include <memory>
#include <vector>

#include "common/base/context.h"
#include "rafs/metadata/metadata.h"
#include "storage/cache/blob_cache.h"

namespace davit::rafs {

/// Thread-safe. Knows neither FUSE nor HTTP.
class Filesystem {
 public:
  /// Gives the cached blob for a position in metadata.blobs(); called at the first read of it.
  using BlobOpener = std::function<Result<std::shared_ptr<storage::CachedBlob>>(std::uint32_t)>;

  Filesystem(std::unique_ptr<Metadata> metadata, BlobOpener open_blob);
  ~Filesystem();
  Filesystem(const Filesystem&) = delete;
  Filesystem& operator=(const Filesystem&) = delete;

  const Metadata& metadata() const;
  /// Fills `out` from the file; short only at its end. Waits for what is not local yet.
  Result<std::size_t> Read(const Context& ctx, InodeId file, std::uint64_t offset,
                           MutableBytes out) const;
  /// Makes the range local; for callers that then splice or map.
  Status Ensure(const Context& ctx, InodeId file, ByteRange range) const;
  /// The blob, opened; kNotFound past the table.
  Result<std::shared_ptr<storage::CachedBlob>> Blob(std::uint32_t position) const;
  /// The ranges of every blob that hold the content of a subtree, in walk order.
  Result<std::vector<std::pair<std::uint32_t, ByteRange>>> Ranges(InodeId subtree) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace davit::rafs
