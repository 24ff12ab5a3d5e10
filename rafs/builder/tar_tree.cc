#include "rafs/builder/tar_tree.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>

#include "rafs/builder/source_build.h"

namespace davit::rafs {
namespace {

constexpr int kMaxSymlinks = 40;  // as the kernel's limit

std::shared_ptr<TreeInode> ImplicitDirectory(std::uint32_t layer) {
  auto node = std::make_shared<TreeInode>();
  node->mode = S_IFDIR | 0755;
  node->implicit = true;
  node->layer = layer;
  return node;
}

template <class Fn>
void ForEachPart(std::string_view path, const Fn& fn) {
  while (!path.empty()) {
    const std::size_t end = path.find('/');
    const std::string_view part = path.substr(0, end);
    path.remove_prefix(end == std::string_view::npos ? path.size() : end + 1);
    if (!part.empty() && part != ".") fn(part);
  }
}

}  // namespace

Result<std::vector<std::string>> SplitEntryPath(std::string_view path) {
  if (path.empty()) return Error(Code::kInvalidArgument, "an entry has an empty name");
  if (path.size() > kMaxTreePath) {
    return Error(Code::kInvalidArgument,
                 fmt::format("entry '{}...' has a path of {} bytes; the limit is {}",
                             path.substr(0, 100), path.size(), kMaxTreePath));
  }
  std::vector<std::string> parts;
  Status status;
  ForEachPart(path, [&](std::string_view part) {
    if (status.ok()) status = CheckEntryName(part, path);
    parts.emplace_back(part);
  });
  if (!status.ok()) return std::move(status).error();
  return parts;
}

TarTree::TarTree(std::uint32_t layer) : layer_(layer), tree_{ImplicitDirectory(layer)} {}

// The directory at `parts`, made where it is missing. `parts` may grow by symlinks on the way.
Result<TreeInode*> TarTree::Enter(std::vector<std::string> parts, std::string_view entry,
                                  Missing missing) {
  std::vector<TreeInode*> trail{tree_.root.get()};
  std::reverse(parts.begin(), parts.end());  // a stack: next part at the back
  int budget = kMaxSymlinks;
  while (!parts.empty()) {
    const std::string part = std::move(parts.back());
    parts.pop_back();
    if (part == "..") {  // of a symlink only
      if (trail.size() > 1) trail.pop_back();
      continue;
    }
    auto found = trail.back()->children.find(part);
    if (found == trail.back()->children.end()) {
      if (missing == Missing::kNull) return nullptr;
      found = trail.back()->children.emplace(part, ImplicitDirectory(layer_)).first;
    }
    const std::shared_ptr<TreeInode>& slot = found->second;
    if (slot->IsDirectory()) {
      trail.push_back(slot.get());
      if (trail.size() > kMaxTreePath / 2) {
        return Error(Code::kInvalidArgument,
                     fmt::format("entry '{}' leads through too many directories", entry));
      }
    } else if (S_ISLNK(slot->mode) && --budget >= 0 && slot->target.size() <= kMaxTreePath) {
      if (slot->target.starts_with('/')) trail.resize(1);
      std::vector<std::string> detour;
      ForEachPart(slot->target, [&](std::string_view p) { detour.emplace_back(p); });
      parts.insert(parts.end(), detour.rbegin(), detour.rend());
    } else if (missing == Missing::kNull) {
      return nullptr;
    } else {
      return Error(Code::kInvalidArgument,
                   fmt::format("entry '{}': its parent '{}' is no directory", entry, part))
          .WithHint("the archive is damaged or its entries are in the wrong order");
    }
  }
  return trail.back();
}

Result<TarTree::Place> TarTree::Locate(std::string_view path) {
  DAVIT_TRY_ASSIGN(std::vector<std::string> parts, SplitEntryPath(path));
  if (parts.empty()) return Place{tree_.root.get(), {}};
  std::string name = std::move(parts.back());
  parts.pop_back();
  DAVIT_TRY_ASSIGN(TreeInode * directory, Enter(std::move(parts), path, Missing::kCreate));
  return Place{directory, std::move(name)};
}

Status TarTree::Insert(std::string_view path, std::shared_ptr<TreeInode> inode) {
  DAVIT_TRY_ASSIGN(const Place place, Locate(path));
  inode->layer = layer_;
  TreeInode* old = nullptr;
  if (place.name.empty()) {
    old = place.directory;
    if (!inode->IsDirectory()) {
      return Error(Code::kInvalidArgument,
                   fmt::format("entry '{}' is the root, but no directory", path));
    }
  } else if (const auto found = place.directory->children.find(place.name);
             found != place.directory->children.end()) {
    old = found->second.get();
  }
  if (old != nullptr && old->IsDirectory() && inode->IsDirectory()) {
    inode->children = std::move(old->children);
    *old = std::move(*inode);
    return {};
  }
  place.directory->children[place.name] = std::move(inode);
  return {};
}

Result<std::shared_ptr<TreeInode>> TarTree::Find(std::vector<std::string> parts,
                                                 std::string_view entry) {
  if (parts.empty()) return tree_.root;
  const std::string name = std::move(parts.back());
  parts.pop_back();
  DAVIT_TRY_ASSIGN(const TreeInode* directory, Enter(std::move(parts), entry, Missing::kNull));
  if (directory == nullptr) return nullptr;
  const auto found = directory->children.find(name);
  return found != directory->children.end() ? found->second : nullptr;
}

Status TarTree::InsertLink(std::string_view path, std::string_view target) {
  DAVIT_TRY_ASSIGN(const Place place, Locate(path));
  DAVIT_TRY_ASSIGN(const std::vector<std::string> target_parts, SplitEntryPath(target));
  if (place.name.empty() || target_parts.empty()) {
    return Error(Code::kInvalidArgument,
                 fmt::format("entry '{}' is a hard link of the root directory", path));
  }
  DAVIT_TRY_ASSIGN(std::shared_ptr<TreeInode> found, Find(target_parts, path));
  if (found != nullptr && found->IsDirectory()) {
    return Error(Code::kInvalidArgument,
                 fmt::format("entry '{}' is a hard link to the directory '{}'", path, target));
  }
  std::shared_ptr<TreeInode>& slot = place.directory->children[place.name];
  if (found != nullptr && found == slot) return {};  // a link to itself changes nothing
  if (found == nullptr || !found->link_target.empty()) {
    auto placeholder = std::make_shared<TreeInode>();
    placeholder->mode = S_IFREG;
    placeholder->layer = layer_;
    for (const std::string& part : target_parts) {
      if (!placeholder->link_target.empty()) placeholder->link_target += '/';
      placeholder->link_target += part;
    }
    links_.emplace(placeholder.get(), nullptr);
    slot = std::move(placeholder);
  } else if (found->IsRegular()) {
    slot = std::move(found);
  } else {
    slot = std::make_shared<TreeInode>(*found);  // RAFS links regular files only
  }
  return {};
}

Result<Tree> TarTree::Finish() {
  if (!links_.empty()) DAVIT_TRY(ConnectLinks(*tree_.root));
  return std::move(tree_);
}

Status TarTree::ConnectLinks(TreeInode& dir) {
  for (auto& [name, child] : dir.children) {
    if (child->IsDirectory()) {
      DAVIT_TRY(ConnectLinks(*child));
    } else if (!child->link_target.empty()) {
      DAVIT_TRY(ConnectLink(child));
    }
  }
  return {};
}

// Follows links to links; every placeholder is looked at once, so that a long chain costs no more
// than its length.
Status TarTree::ConnectLink(std::shared_ptr<TreeInode>& slot) {
  std::vector<const TreeInode*> chain;
  std::shared_ptr<TreeInode> node = slot, last;
  while (node != nullptr && !node->link_target.empty()) {
    const auto known = links_.find(node.get());
    if (known == links_.end()) return {};  // a cycle; whoever needs the content will say so
    if (known->second != nullptr) {
      node = known->second;
      break;
    }
    chain.push_back(node.get());
    last = node;
    DAVIT_TRY_ASSIGN(auto parts, SplitEntryPath(node->link_target));
    links_.erase(known);
    DAVIT_TRY_ASSIGN(node, Find(std::move(parts), last->link_target));
  }
  if (node != nullptr && node->IsDirectory()) return {};
  if (node == nullptr) node = last;  // the end of the chain is in a lower layer
  for (const TreeInode* link : chain) links_.emplace(link, node);
  slot = node->IsRegular() ? node : std::make_shared<TreeInode>(*node);
  return {};
}

}  // namespace davit::rafs
