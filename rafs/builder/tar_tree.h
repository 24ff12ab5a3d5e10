#pragma once
// The tree that the entries of a tar stream make, one after the other.

#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "rafs/builder/tree.h"

namespace davit::rafs {

class TarTree {
 public:
  explicit TarTree(std::uint32_t layer);

  /// Puts an entry in its place. A later entry of a path replaces an earlier one; a directory keeps
  /// its children. Missing parents are made (implicit, 0755, root); symlinks of this layer on the
  /// way are followed inside the tree, as extraction into a root directory does.
  Status Insert(std::string_view path, std::shared_ptr<TreeInode> inode);
  /// A hard link. Its target may come later in the stream, or be in a lower layer.
  Status InsertLink(std::string_view path, std::string_view target);
  /// Connects the links whose targets came later; what is left becomes links into lower layers.
  Result<Tree> Finish();

 private:
  struct Place {
    TreeInode* directory = nullptr;
    std::string name;  // empty: the directory itself is meant (the root)
  };
  Result<Place> Locate(std::string_view path);
  enum class Missing { kCreate, kNull };
  Result<TreeInode*> Enter(std::vector<std::string> parts, std::string_view entry, Missing missing);
  Result<std::shared_ptr<TreeInode>> Find(std::vector<std::string> parts, std::string_view entry);
  Status ConnectLinks(TreeInode& dir);
  Status ConnectLink(std::shared_ptr<TreeInode>& slot);

  const std::uint32_t layer_;
  Tree tree_;
  // Placeholders of links whose target was not there, with what they turned out to be (null: a
  // file of a lower layer).
  std::unordered_map<const TreeInode*, std::shared_ptr<TreeInode>> links_;
};

/// "./a//b/" -> {"a", "b"}; kInvalidArgument, naming the entry, for "..", names over 255 bytes and
/// paths over kMaxTreePath.
Result<std::vector<std::string>> SplitEntryPath(std::string_view path);

}  // namespace davit::rafs
