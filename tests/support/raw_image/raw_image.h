#pragma once
// Writes RAFS v6 bootstraps piece by piece, also such as no builder makes: every form that the
// reader has to know, and every way to break it. Not for large files beyond a test's needs.

#include <cstring>
#include <string>
#include <string_view>
#include <vector>

#include "erofs/format/erofs_fs.h"
#include "rafs/layout/v6.h"

namespace davit::testing {

/// Overwrites the bytes at `offset` with a value.
template <class T>
void Patch(std::string& image, std::size_t offset, const T& value) {
  std::memcpy(image.data() + offset, &value, sizeof value);
}

/// One entry of an xattr area: with the prefix's number, padded to 4 bytes.
std::string XattrBytes(erofs::XattrIndex prefix, std::string_view suffix, std::string_view value);

struct RawInode {
  std::uint32_t mode = 0, nlink = 1, uid = 0, gid = 0;
  std::uint64_t size = 0;
  std::int64_t mtime = 0;
  std::uint32_t mtime_nsec = 0;
  std::uint32_t u = 0;
  bool compact = false;
  erofs::Layout layout = erofs::Layout::kPlain;
  std::vector<std::uint32_t> shared_xattrs;
  std::string xattrs;  // inline entries (XattrBytes)
  std::string tail;    // behind the attributes: inline data or chunk indices
};
struct RawEntry {
  std::string name;
  std::uint64_t nid;
  std::uint8_t type;
};

class RawImage {
 public:
  /// Room for 254 blobs in front of the inodes, or for 16: then the image is small.
  enum class Room { kManyBlobs, kFewBlobs };

  using Inode = RawInode;
  using Entry = RawEntry;

  explicit RawImage(std::uint32_t chunk_size = 4096, Room room = Room::kManyBlobs);

  /// Space for an inode; its nid.
  std::uint64_t Reserve(std::size_t bytes);
  /// A whole block for one inode with an inline tail.
  std::uint64_t ReserveBlock();
  void Put(std::uint64_t nid, const Inode& inode);
  std::uint64_t Add(const Inode& inode);
  /// Data in blocks of its own; its block address.
  std::uint32_t Blocks(std::string_view data);
  /// Sorts, fills blocks; a last block of at most `inline_limit` bytes goes into the inode (which
  /// then needs a ReserveBlock()). "." and ".." are added, the latter leading to `parent`.
  void PutDir(std::uint64_t nid, std::uint64_t parent, std::vector<Entry> entries, Inode base = {},
              std::size_t inline_limit = 3500);
  /// A file whose index entries are these; `u` is set for the image's chunk size.
  Inode File(std::uint64_t size, const std::vector<erofs::ChunkIndex>& chunks) const;
  /// A blob with `chunk_count` chunks of V1 chunk info; ids are made from the position.
  rafs::v6::BlobTableEntry& AddBlob(std::uint32_t chunk_count, std::uint64_t uncompressed_size);
  static std::string BlobIdOf(std::size_t position);

  std::string Build() const;

  erofs::SuperBlock super{};
  rafs::v6::SuperExtension ext{};  // table positions are set by Build()
  std::vector<rafs::v6::BlobTableEntry> blobs;
  std::vector<rafs::v6::ChunkRecord> chunks;
  std::vector<std::uint32_t> prefetch;

 private:
  std::uint32_t meta_block_;
  std::uint64_t blob_table_offset_;
  std::string meta_;  // from block meta_block_ on
};

/// Dirents and names in blocks; the last block is not padded.
std::string EncodeDir(std::vector<RawImage::Entry> entries);

}  // namespace davit::testing
