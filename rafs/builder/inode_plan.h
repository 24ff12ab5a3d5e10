#pragma once
// Where every inode and its data go in the metadata area of a bootstrap.

#include <cstdint>
#include <map>
#include <unordered_map>
#include <vector>

#include "common/base/result.h"
#include "rafs/builder/tree.h"

namespace davit::rafs {

struct PlannedInode {
  const TreeInode* inode = nullptr;
  const TreeInode* parent = nullptr;  // of directories
  std::uint64_t offset = 0;           // from the start of the area
  std::uint64_t data_offset = 0;      // of the full blocks of a directory or symlink
  std::uint64_t size = 0;             // as the inode reports it
  std::uint32_t xattr_bytes = 0;
  std::uint32_t nlink = 0;
  bool inline_tail = false;  // the end of the data follows the inode
};

class InodePlan {
 public:
  /// kInvalidArgument, naming the path, for what the format cannot hold.
  static Result<InodePlan> Make(const Tree& tree);

  /// In the order of placement: the root first, then for each directory its other children before
  /// its sub-directories.
  const std::vector<PlannedInode>& inodes() const { return inodes_; }
  std::uint64_t NidOf(const TreeInode* inode) const;
  /// End of the area.
  std::uint64_t size() const { return cursor_; }
  bool has_xattrs() const { return has_xattrs_; }

 private:
  Status AddDirectory(const TreeInode& dir, const TreeInode& parent, std::string& path);
  Status Add(const TreeInode& inode, const TreeInode* parent, const std::string& path);
  void Place(PlannedInode& planned);
  std::uint64_t Take(std::uint64_t need, bool in_one_block);
  void AddGap(std::uint64_t begin, std::uint64_t end);

  std::vector<PlannedInode> inodes_;
  std::unordered_map<const TreeInode*, std::uint32_t> index_;
  std::uint64_t cursor_ = 0;
  std::map<std::uint64_t, std::vector<std::uint64_t>> gaps_;  // by size; inside one block each
  bool has_xattrs_ = false;
};

}  // namespace davit::rafs
