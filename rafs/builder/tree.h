#pragma once
// A file tree in memory, between a source (directory, tar, bootstrap) and a bootstrap.

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"

namespace davit::rafs {

/// Where a piece of a file's content is: chunk `chunk` of blob `blob` of a BlobSet.
struct ChunkRef {
  std::uint32_t blob = 0;
  std::uint32_t chunk = 0;
  bool operator==(const ChunkRef&) const = default;
};

/// Everything that hard links share. Several names may point to one (regular files only).
struct TreeInode {
  std::uint32_t mode = 0;  // with type bits
  std::uint32_t uid = 0, gid = 0;
  std::uint32_t rdev = 0;
  std::uint64_t size = 0;
  std::int64_t mtime = 0;
  std::uint32_t mtime_nsec = 0;
  std::map<std::string, std::string> xattrs;  // full names; sorted, so output is reproducible
  std::string target;                         // of a symlink
  std::vector<ChunkRef> chunks;               // one per chunk_size of the file
  std::map<std::string, std::shared_ptr<TreeInode>> children;  // of a directory; bytewise order
  std::uint32_t layer = 0;  // index of the source layer it came from
  bool opaque = false;      // directory: hides the lower layers' content
  bool whiteout = false;    // removes this name from lower layers
  /// Directory that the source did not name, only paths below it: the lower layer's attributes
  /// stay, and a symlink of that name in the lower layer is followed.
  bool implicit = false;
  /// Hard link to this path of a lower layer ("a/b", never empty then); everything else is unset
  /// until ApplyLayer puts the lower layer's inode in its place.
  std::string link_target;

  bool IsDirectory() const;
  bool IsRegular() const;
};

/// Longest path in a tree; bounds the depth of every walk over one.
inline constexpr std::size_t kMaxTreePath = 4096;

/// A tree; never without a root directory.
struct Tree {
  std::shared_ptr<TreeInode> root;
  /// Number of distinct inodes.
  std::uint64_t CountInodes() const;
};

/// Applies an upper layer to a lower one in place: whiteouts and opaque directories of `upper`
/// first, then its entries; attributes of directories come from the upper one. Whiteouts never
/// remain in the result. kDataLoss, naming the entry, for a hard link to a path that neither layer
/// has; `lower` is then half changed.
Status ApplyLayer(Tree& lower, Tree&& upper);
/// The inode at a path ("a/b" or "/a/b"; no symlinks followed), or null.
std::shared_ptr<TreeInode> FindPath(const Tree& tree, std::string_view path);
/// Drops whiteout entries that had nothing to remove (the lowest layer's).
void DropWhiteouts(Tree& tree);

}  // namespace davit::rafs
