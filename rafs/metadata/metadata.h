#pragma once
// An image's tree, read from its bootstrap: the same interface for every RAFS version.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/fd.h"
#include "common/base/result.h"
#include "common/codec/codec.h"
#include "common/digest/digest.h"
#include "storage/blob/blob.h"
#include "storage/blobmeta/ci.h"

namespace davit::rafs {

/// Identity of an inode in one image; stable over remounts, never 0. In v6 it is the EROFS nid.
struct InodeId {
  std::uint64_t value = 0;
  auto operator<=>(const InodeId&) const = default;
};

struct Attributes {
  InodeId id;
  std::uint32_t mode = 0;  // with the type bits
  std::uint32_t nlink = 0;
  std::uint32_t uid = 0, gid = 0;
  std::uint32_t rdev = 0;  // Linux encoding; devices only
  std::uint64_t size = 0;
  std::int64_t mtime = 0;
  std::uint32_t mtime_nsec = 0;
};

struct DirEntry {
  InodeId id;
  /// Points into the bootstrap; not NUL-terminated, any bytes but '/' and NUL.
  std::string_view name;
  std::uint32_t type = 0;  // S_IFMT bits
};

/// A piece of a file: `length` bytes at `file_offset` are at `blob_offset` of the blob's
/// uncompressed space, or zeros when `blob` is nothing (a hole).
struct Extent {
  std::uint64_t file_offset = 0;
  std::uint64_t length = 0;
  std::optional<std::uint32_t> blob;  // position in blobs()
  std::uint64_t blob_offset = 0;
  std::uint32_t chunk = 0;  // index of the first chunk
};

/// One blob table entry.
struct BlobRecord {
  storage::BlobId id;
  std::uint32_t features = 0;
  std::uint32_t chunk_size = 0;
  std::uint64_t compressed_size = 0;  // see the format document: whole object or data region
  std::uint64_t toc_size = 0;
  Digest toc_digest;
  storage::CiExpectation ci;  // includes counts, sizes, algorithms
};

struct ImageInfo {
  std::string version;  // "v6"
  std::uint32_t block_size = 4096;
  std::uint32_t chunk_size = 0;
  std::uint64_t inodes = 0;
  codec::Algorithm compressor = codec::Algorithm::kNone;
  DigestAlgorithm digester = DigestAlgorithm::kBlake3;
  bool has_xattrs = false;
  bool explicit_uid_gid = true;
};

/// Immutable view of one bootstrap. Thread-safe. Every method is safe on hostile bytes: malformed
/// parts give kDataLoss where they are met, never a crash, an endless loop or an allocation that
/// the file's size does not justify.
class Metadata {
 public:
  /// `image` must stay mapped as long as `owner` lives. Costs O(blobs), not O(inodes).
  /// `own_blob_id`: replaces the 64 × 'x' of a bootstrap that is stored inside its own blob.
  static Result<std::unique_ptr<Metadata>> Open(
      Bytes image, std::shared_ptr<const void> owner,
      std::optional<storage::BlobId> own_blob_id = std::nullopt);
  /// Maps a file.
  static Result<std::unique_ptr<Metadata>> OpenFile(
      const std::string& path, std::optional<storage::BlobId> own_blob_id = std::nullopt);
  virtual ~Metadata() = default;
  /// Of a mapped file: its pages stop counting as this process's memory until they are wanted.
  void ReleasePages() const {
    if (mapped_) mapped_->ReleasePages();
  }

  virtual const ImageInfo& info() const = 0;
  /// The bytes it was opened with; for the builder, which copies tables from one image to another.
  virtual Bytes image() const = 0;
  virtual const std::vector<BlobRecord>& blobs() const = 0;
  virtual InodeId root() const = 0;
  /// kNotFound for a missing name, kInvalidArgument (ENOTDIR) when `parent` is no directory. "."
  /// and ".." work. A binary search.
  virtual Result<InodeId> Lookup(InodeId parent, std::string_view name) const = 0;
  virtual Result<Attributes> Stat(InodeId inode) const = 0;
  /// Calls `fn` for entries from `cookie` (0: the first) on, with the cookie that continues after
  /// each one, until it returns false. Contains "." and "..". Cookies are stable.
  virtual Status ListDir(
      InodeId dir, std::uint64_t cookie,
      const std::function<bool(const DirEntry&, std::uint64_t next)>& fn) const = 0;
  virtual Result<std::string> ReadLink(InodeId inode) const = 0;
  /// Full names ("user.x", "security.capability"), in stored order.
  virtual Status ListXattrs(
      InodeId inode, const std::function<void(std::string_view name, Bytes value)>& fn) const = 0;
  /// kNotFound when the inode has no such attribute.
  virtual Result<std::string> GetXattr(InodeId inode, std::string_view name) const = 0;
  /// Appends the pieces of [offset, offset + length) ∩ file to `out`; neighbours that are
  /// contiguous in the blob are one extent.
  virtual Status Extents(InodeId file, std::uint64_t offset, std::uint64_t length,
                         std::vector<Extent>& out) const = 0;
  /// Digests of one blob's chunks from the chunk table; built at the first call, then shared.
  virtual Result<std::shared_ptr<const storage::ChunkDigests>> Digests(
      std::uint32_t blob) const = 0;
  /// Inodes whose content is to be fetched first, in order.
  virtual std::vector<InodeId> PrefetchList() const = 0;

 private:
  std::shared_ptr<const MappedFile> mapped_;  // of OpenFile()
};

/// Splits at '/', ignores empty parts; "." and ".." are refused (kInvalidArgument). Symlinks are
/// not followed.
Result<InodeId> LookupPath(const Metadata& metadata, std::string_view path);

/// Pre-order walk in directory order; stops with the callback's error. kDataLoss for cycles.
using WalkFn = std::function<Status(const std::string& path, const Attributes&)>;
Status Walk(const Metadata& metadata, InodeId from, const WalkFn& fn);

}  // namespace davit::rafs
