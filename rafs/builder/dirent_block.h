#pragma once
// The on-disk form of a directory: blocks of entries, sorted by name over the whole directory.

#include <cstdint>
#include <functional>
#include <string_view>

#include "common/base/bytes.h"
#include "rafs/builder/tree.h"

namespace davit::rafs {

/// Calls `fn` for every entry in the order of the disk: bytewise, with "." and ".." where they
/// sort (names that begin with a space, '!', '#', '+', ',' or '-' come before them). `child` is
/// null for these two.
template <class Fn>
void ForEachDirent(const TreeInode& dir, const Fn& fn) {
  int dots = 0;
  const auto emit_dots_before = [&](std::string_view name) {
    if (dots == 0 && (name.empty() || std::string_view(".") < name)) {
      fn(std::string_view("."), static_cast<const TreeInode*>(nullptr));
      dots = 1;
    }
    if (dots == 1 && (name.empty() || std::string_view("..") < name)) {
      fn(std::string_view(".."), static_cast<const TreeInode*>(nullptr));
      dots = 2;
    }
  };
  for (const auto& [name, child] : dir.children) {
    emit_dots_before(name);
    fn(std::string_view(name), static_cast<const TreeInode*>(child.get()));
  }
  emit_dots_before({});
}

/// Exact bytes of the directory, padding between its blocks included.
std::uint64_t DirectorySize(const TreeInode& dir);

/// Gives each entry its nid and type; `child` is null for "." and "..".
struct DirentTarget {
  std::uint64_t nid = 0;
  std::uint32_t mode = 0;
};
using DirentResolver = std::function<DirentTarget(std::string_view name, const TreeInode* child)>;
/// The content, DirectorySize() bytes.
std::string EncodeDirectory(const TreeInode& dir, const DirentResolver& resolve);

}  // namespace davit::rafs
