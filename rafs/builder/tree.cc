#include "rafs/builder/tree.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <unordered_set>
#include <utility>

namespace davit::rafs {
namespace {

constexpr int kMaxSymlinks = 40;  // as the kernel's limit

// Calls `fn(path, node)` for every entry below `dir`; paths have no leading slash. Depth is
// bounded by kMaxTreePath.
template <class Fn>
Status ForEachEntry(TreeInode& dir, std::string& path, const Fn& fn) {
  for (auto& [name, child] : dir.children) {
    const std::size_t length = path.size();
    if (!path.empty()) path += '/';
    path += name;
    DAVIT_TRY(fn(path, child));
    if (child->IsDirectory()) DAVIT_TRY(ForEachEntry(*child, path, fn));
    path.resize(length);
  }
  return {};
}

// Hard links of `upper` that point into `lower` become references to its inodes. Done before
// anything is removed from `lower`: a layer may link to a file and delete its old name.
Status ResolveLinks(const Tree& lower, Tree& upper) {
  std::string path;
  return ForEachEntry(
      *upper.root, path, [&](const std::string& name, std::shared_ptr<TreeInode>& node) -> Status {
        if (node->link_target.empty()) return {};
        std::shared_ptr<TreeInode> target = FindPath(lower, node->link_target);
        if (target == nullptr || target->IsDirectory() || target->whiteout ||
            !target->link_target.empty()) {
          return Error(Code::kDataLoss,
                       fmt::format("entry '{}' is a hard link to '{}', which is no file of this or "
                                   "a lower layer",
                                   name, node->link_target))
              .WithHint("the layers are incomplete or in the wrong order");
        }
        if (target->IsRegular()) {
          node = std::move(target);
        } else {  // only regular files are linked in RAFS
          node = std::make_shared<TreeInode>(*target);
        }
        return {};
      });
}

// What an upper layer adds where the lower one has nothing.
void StripMarkers(TreeInode& dir) {
  dir.opaque = false;
  std::erase_if(dir.children, [](const auto& entry) { return entry.second->whiteout; });
  for (auto& [name, child] : dir.children) {
    if (child->IsDirectory()) StripMarkers(*child);
  }
}

void CopyAttributes(const TreeInode& from, TreeInode& to) {
  to.mode = from.mode;
  to.uid = from.uid;
  to.gid = from.gid;
  to.mtime = from.mtime;
  to.mtime_nsec = from.mtime_nsec;
  to.xattrs = from.xattrs;
  to.layer = from.layer;
  to.implicit = from.implicit;
}

// The directory that `target`, read as a symlink in the directory with the ancestors `trail`
// (root first), leads to; null when it leads to no directory of the tree.
std::vector<TreeInode*> FollowSymlink(std::vector<TreeInode*> trail, std::string_view target,
                                      int& budget) {
  if (--budget < 0) return {};
  if (target.starts_with('/')) trail.resize(1);
  while (!target.empty()) {
    const std::size_t end = target.find('/');
    const std::string part(target.substr(0, end));
    target.remove_prefix(end == std::string_view::npos ? target.size() : end + 1);
    if (part.empty() || part == ".") continue;
    if (part == "..") {
      if (trail.size() > 1) trail.pop_back();
      continue;
    }
    const auto found = trail.back()->children.find(part);
    if (found == trail.back()->children.end()) return {};
    TreeInode* next = found->second.get();
    if (next->IsDirectory()) {
      trail.push_back(next);
    } else if (S_ISLNK(next->mode)) {
      trail = FollowSymlink(std::move(trail), next->target, budget);
      if (trail.empty()) return {};
    } else {
      return {};
    }
  }
  return trail;
}

// `trail` ends with the lower directory that `upper` is applied to.
void MergeDirectory(std::vector<TreeInode*> trail, TreeInode& upper) {
  TreeInode& lower = *trail.back();
  if (upper.opaque) {
    lower.children.clear();
  } else {
    for (const auto& [name, child] : upper.children) {
      if (child->whiteout) lower.children.erase(name);
    }
  }
  for (auto& [name, child] : upper.children) {
    if (child->whiteout) continue;
    if (!child->IsDirectory()) {
      lower.children.insert_or_assign(name, child);
      continue;
    }
    const auto old = lower.children.find(name);
    std::vector<TreeInode*> inner;
    if (old != lower.children.end() && old->second->IsDirectory()) {
      inner = trail;
      inner.push_back(old->second.get());
      if (!child->implicit) CopyAttributes(*child, *old->second);
    } else if (old != lower.children.end() && child->implicit && S_ISLNK(old->second->mode)) {
      int budget = kMaxSymlinks;
      inner = FollowSymlink(trail, old->second->target, budget);
    }
    if (!inner.empty()) {
      MergeDirectory(std::move(inner), *child);
    } else {
      StripMarkers(*child);
      lower.children.insert_or_assign(name, child);
    }
  }
}

void Count(const TreeInode& node, std::unordered_set<const TreeInode*>& seen) {
  for (const auto& [name, child] : node.children) {
    if (child->IsDirectory()) {
      seen.insert(child.get());
      Count(*child, seen);
    } else {
      seen.insert(child.get());
    }
  }
}

}  // namespace

bool TreeInode::IsDirectory() const { return S_ISDIR(mode); }
bool TreeInode::IsRegular() const { return S_ISREG(mode); }

std::uint64_t Tree::CountInodes() const {
  std::unordered_set<const TreeInode*> seen{root.get()};
  Count(*root, seen);
  return seen.size();
}

std::shared_ptr<TreeInode> FindPath(const Tree& tree, std::string_view path) {
  std::shared_ptr<TreeInode> node = tree.root;
  while (!path.empty()) {
    const std::size_t end = path.find('/');
    const std::string_view part = path.substr(0, end);
    path.remove_prefix(end == std::string_view::npos ? path.size() : end + 1);
    if (part.empty()) continue;
    const auto found = node->children.find(std::string(part));
    if (found == node->children.end()) return nullptr;
    node = found->second;
  }
  return node;
}

Status ApplyLayer(Tree& lower, Tree&& upper) {
  DAVIT_TRY(ResolveLinks(lower, upper));
  if (!upper.root->implicit) CopyAttributes(*upper.root, *lower.root);
  MergeDirectory({lower.root.get()}, *upper.root);
  return {};
}

void DropWhiteouts(Tree& tree) { StripMarkers(*tree.root); }

}  // namespace davit::rafs
