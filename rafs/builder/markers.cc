#include "rafs/builder/markers.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <set>
#include <utility>
#include <vector>

namespace davit::rafs {
namespace {

constexpr std::string_view kWhiteoutPrefix = ".wh.";
constexpr std::string_view kMetaPrefix = ".wh..wh.";
constexpr std::string_view kOpaqueMarker = ".wh..wh..opq";
constexpr const char* kOverlayOpaque = "trusted.overlay.opaque";
// davit's own, in the bootstraps inside layer blobs only.
constexpr const char* kImplicitXattr = "trusted.davit.implicit";
constexpr const char* kLinkXattr = "trusted.davit.link";

std::shared_ptr<TreeInode> MakeWhiteout(const TreeInode& marker) {
  auto node = std::make_shared<TreeInode>();
  node->mode = S_IFREG;
  node->whiteout = true;
  node->layer = marker.layer;
  return node;
}

Status HideLower(TreeInode& dir, const std::string& removed, const TreeInode& marker) {
  if (removed.empty() || removed == "." || removed == "..") {
    return Error(Code::kInvalidArgument, fmt::format("whiteout '.wh.{}' names nothing", removed));
  }
  const auto [entry, fresh] = dir.children.try_emplace(removed);
  if (fresh) {
    entry->second = MakeWhiteout(marker);
  } else if (entry->second->IsDirectory()) {
    entry->second->opaque = true;  // removed and made anew in the same layer
  }
  return {};
}

Status InterpretOci(TreeInode& dir) {
  std::vector<std::pair<std::string, std::shared_ptr<TreeInode>>> markers;
  for (auto it = dir.children.lower_bound(std::string(kWhiteoutPrefix));
       it != dir.children.end() && it->first.starts_with(kWhiteoutPrefix);) {
    markers.emplace_back(it->first, it->second);
    it = dir.children.erase(it);
  }
  for (const auto& [name, node] : markers) {
    if (name == kOpaqueMarker) {
      dir.opaque = true;
    } else if (!name.starts_with(kMetaPrefix)) {  // the rest are remains of aufs
      DAVIT_TRY(HideLower(dir, name.substr(kWhiteoutPrefix.size()), *node));
    }
  }
  return {};
}

void InterpretOverlay(TreeInode& dir) {
  if (const auto found = dir.xattrs.find(kOverlayOpaque); found != dir.xattrs.end()) {
    dir.opaque = dir.opaque || found->second == "y";
    dir.xattrs.erase(found);
  }
  for (auto& [name, child] : dir.children) {
    if (S_ISCHR(child->mode) && child->rdev == 0) child = MakeWhiteout(*child);
  }
}

Status Interpret(TreeInode& dir, BuildOptions::Whiteouts form) {
  using Whiteouts = BuildOptions::Whiteouts;
  if (dir.xattrs.erase(kImplicitXattr) > 0) dir.implicit = true;
  if (form == Whiteouts::kOci) DAVIT_TRY(InterpretOci(dir));
  if (form == Whiteouts::kOverlay) InterpretOverlay(dir);
  for (auto& [name, child] : dir.children) {
    if (child->IsDirectory()) {
      DAVIT_TRY(Interpret(*child, form));
    } else if (const auto link = child->xattrs.find(kLinkXattr); link != child->xattrs.end()) {
      std::string target = link->second;
      child->xattrs.erase(link);
      if (!target.empty()) child->link_target = std::move(target);
    }
  }
  return {};
}

// Copies a directory only when something in it has to change.
class Exporter {
 public:
  explicit Exporter(BootstrapKind kind) : kind_(kind) {}

  Result<std::shared_ptr<TreeInode>> Directory(const std::shared_ptr<TreeInode>& dir,
                                               std::string& path) {
    std::shared_ptr<TreeInode> copy;
    const auto changed = [&]() -> TreeInode& {
      if (copy == nullptr) {
        copy = std::make_shared<TreeInode>(*dir);
        copy->opaque = copy->implicit = false;
      }
      return *copy;
    };
    const bool layer = kind_ == BootstrapKind::kLayer;
    if (layer && dir->implicit) changed().xattrs[kImplicitXattr] = "y";
    if (layer && dir->opaque) changed().children[std::string(kOpaqueMarker)] = Marker(*dir);
    const std::size_t length = path.size();
    for (const auto& [name, child] : dir->children) {
      if (child->whiteout) {
        changed().children.erase(name);
        if (layer) copy->children[std::string(kWhiteoutPrefix) + name] = Marker(*child);
        continue;
      }
      path += '/';
      path += name;
      if (child->IsDirectory()) {
        DAVIT_TRY_ASSIGN(auto exported, Directory(child, path));
        if (exported != child) changed().children[name] = std::move(exported);
      } else if (!child->link_target.empty()) {
        DAVIT_TRY_ASSIGN(auto exported, Link(*child, path));
        changed().children[name] = std::move(exported);
      }
      path.resize(length);
    }
    return copy != nullptr ? copy : dir;
  }

 private:
  static std::shared_ptr<TreeInode> Marker(const TreeInode& of) {
    auto node = std::make_shared<TreeInode>();
    node->mode = S_IFREG;
    node->layer = of.layer;
    return node;
  }

  Result<std::shared_ptr<TreeInode>> Link(const TreeInode& link, const std::string& path) {
    if (kind_ == BootstrapKind::kImage) {
      return Error(Code::kInvalidArgument,
                   fmt::format("entry '{}' is a hard link to '{}', which does not exist", path,
                               link.link_target))
          .WithHint("it may be in a lower layer: build all layers together");
    }
    auto node = Marker(link);
    node->xattrs[kLinkXattr] = link.link_target;
    return node;
  }

  const BootstrapKind kind_;
};

}  // namespace

Status InterpretMarkers(Tree& tree, BuildOptions::Whiteouts form) {
  return Interpret(*tree.root, form);
}

Result<Tree> ExportMarkers(BootstrapKind kind, const Tree& tree) {
  std::string path;
  DAVIT_TRY_ASSIGN(auto root, Exporter(kind).Directory(tree.root, path));
  return Tree{std::move(root)};
}

}  // namespace davit::rafs
