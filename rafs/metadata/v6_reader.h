#pragma once
// The RAFS v6 implementation of Metadata; internal to rafs/metadata. Everything is read from the
// mapped bootstrap when it is asked for; nothing but the blob table is kept in memory.

#include "common/base/sync.h"
#include "erofs/format/erofs_fs.h"
#include "rafs/layout/v6.h"
#include "rafs/metadata/metadata.h"
#include "rafs/metadata/v6_digests.h"

namespace davit::rafs {

/// A decoded inode and where its parts are.
struct V6Inode {
  Attributes attributes;
  erofs::Layout layout = erofs::Layout::kPlain;
  std::uint32_t u = 0;             // block address, chunk format or device number
  std::uint64_t xattr_offset = 0;  // in the image
  std::uint64_t xattr_size = 0;    // 0: none
  std::uint64_t tail_offset() const { return xattr_offset + xattr_size; }
};

/// The blob table with the device table, checked. `own_blob_id`: see Metadata::Open.
Result<std::vector<BlobRecord>> ReadV6BlobTable(Bytes image, const v6::Super& super,
                                                const std::optional<storage::BlobId>& own_blob_id);

class V6Metadata final : public Metadata {
 public:
  static Result<std::unique_ptr<Metadata>> Open(Bytes image, std::shared_ptr<const void> owner,
                                                const std::optional<storage::BlobId>& own_blob_id);

  const ImageInfo& info() const override { return info_; }
  const std::vector<BlobRecord>& blobs() const override { return blobs_; }
  Bytes image() const override { return image_; }
  InodeId root() const override { return {super_.erofs.root_nid}; }
  Result<InodeId> Lookup(InodeId parent, std::string_view name) const override;
  Result<Attributes> Stat(InodeId inode) const override;
  Status ListDir(InodeId dir, std::uint64_t cookie,
                 const std::function<bool(const DirEntry&, std::uint64_t next)>& fn) const override;
  Result<std::string> ReadLink(InodeId inode) const override;
  Status ListXattrs(
      InodeId inode,
      const std::function<void(std::string_view name, Bytes value)>& fn) const override;
  Result<std::string> GetXattr(InodeId inode, std::string_view name) const override;
  Status Extents(InodeId file, std::uint64_t offset, std::uint64_t length,
                 std::vector<Extent>& out) const override;
  Result<std::shared_ptr<const storage::ChunkDigests>> Digests(std::uint32_t blob) const override;
  std::vector<InodeId> PrefetchList() const override;

 private:
  /// One block of a directory: dirents, then names.
  struct DirBlock {
    Bytes bytes;
    std::uint32_t count = 0;
  };
  struct RawEntry {
    std::uint64_t nid = 0;
    std::uint8_t type = 0;
    std::string_view name;
  };
  struct RawXattr {
    std::uint8_t prefix = 0;
    std::string_view suffix;
    Bytes value;
  };
  /// Called for each attribute until it returns false.
  using XattrFn = std::function<Result<bool>(const RawXattr&)>;

  V6Metadata(Bytes image, std::shared_ptr<const void> owner)
      : image_(image), owner_(std::move(owner)) {}

  Error Damaged(std::string_view what) const;
  Result<V6Inode> Inode(InodeId inode) const;
  Result<V6Inode> Directory(InodeId inode) const;
  /// Block `index` of the content of a plain or inline inode; the last one may be short.
  Result<Bytes> ContentBlock(const V6Inode& inode, std::uint64_t index) const;
  Result<DirBlock> ReadDirBlock(const V6Inode& dir, std::uint64_t index) const;
  Result<RawEntry> ReadDirEntry(const DirBlock& block, std::uint32_t index) const;
  Result<std::uint32_t> EntryType(const RawEntry& entry) const;
  Result<std::optional<InodeId>> FindInBlock(const DirBlock& block, std::string_view name) const;
  Status ForEachXattr(const V6Inode& inode, const XattrFn& fn) const;
  Result<RawXattr> ReadXattr(Bytes area, std::uint64_t offset, std::uint64_t& size) const;
  /// The part of a file's chunk that lies in `range` (which it touches).
  Result<Extent> ReadChunk(const V6Inode& file, Bytes indices, std::uint64_t chunk,
                           ByteRange range) const;

  Bytes image_;
  std::shared_ptr<const void> owner_;
  v6::Super super_{};
  ImageInfo info_;
  std::vector<BlobRecord> blobs_;
  mutable Mutex mutex_;
  mutable std::shared_ptr<const V6ChunkIndex> chunk_index_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::rafs
