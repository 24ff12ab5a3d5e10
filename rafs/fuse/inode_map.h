#pragma once
// Node ids of the FUSE protocol and inode ids of an image; internal to rafs/fuse.

#include <cstdint>

#include "rafs/metadata/metadata.h"

namespace davit::rafs {

/// FUSE wants node 1 to be the root. An image's root has whatever id it has, and another inode may
/// have id 1. So the two swap places and every other id stays as it is: a bijection that needs no
/// table, never collides and is the same after every remount. Users see the image's ids (st_ino).
class InodeMap {
 public:
  static constexpr std::uint64_t kRootNode = 1;

  explicit InodeMap(InodeId root) : root_(root.value) {}
  std::uint64_t ToNode(InodeId inode) const { return Swap(inode.value); }
  InodeId ToInode(std::uint64_t node) const { return {Swap(node)}; }

 private:
  std::uint64_t Swap(std::uint64_t id) const {
    if (id == root_) return kRootNode;
    if (id == kRootNode) return root_;
    return id;
  }
  std::uint64_t root_;
};

}  // namespace davit::rafs
