#pragma once
// A mounted image without a kernel: tree and content together, POSIX-like and read-only.

#include <functional>
#include <memory>
#include <span>
#include <utility>
#include <vector>

#include "common/base/context.h"
#include "rafs/metadata/metadata.h"
#include "storage/cache/blob_cache.h"

namespace davit::rafs {

/// A part of a file: `length` bytes at `blob_offset` of a blob, or zeros when `blob` is null (a
/// hole). The blob lives as long as the Filesystem that gave the piece.
struct Piece {
  storage::CachedBlob* blob = nullptr;
  std::uint64_t blob_offset = 0;
  std::uint64_t length = 0;
};

/// Thread-safe. Knows neither FUSE nor HTTP. Reading is Locate, then Ensure, then Copy: front ends
/// that want no buffer while a reader waits take the steps one by one.
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
  /// Appends the pieces of [offset, offset + length) ∩ file in order; opens blobs, waits for
  /// nothing. Their lengths add up to the bytes that the file has there.
  Status Locate(InodeId file, std::uint64_t offset, std::uint64_t length,
                std::vector<Piece>& out) const;
  /// True when Copy would not wait; no lock.
  static bool IsLocal(std::span<const Piece> pieces);
  /// Makes the pieces local.
  static Status Ensure(const Context& ctx, std::span<const Piece> pieces);
  /// Copies the pieces one after another; `out` has room for all. Waits for what is not local.
  static Result<std::size_t> Copy(const Context& ctx, std::span<const Piece> pieces,
                                  MutableBytes out);
  /// The blob, opened; kNotFound past the table.
  Result<std::shared_ptr<storage::CachedBlob>> Blob(std::uint32_t position) const;
  /// The ranges of every blob that hold the content of a subtree, in walk order; each inode once,
  /// neighbours joined.
  Result<std::vector<std::pair<std::uint32_t, ByteRange>>> Ranges(InodeId subtree) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace davit::rafs
