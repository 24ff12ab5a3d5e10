#include "rafs/builder/inode_plan.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "common/base/bytes.h"
#include "rafs/builder/dirent_block.h"
#include "rafs/builder/xattr_block.h"
#include "rafs/layout/v6.h"

namespace davit::rafs {
namespace {

constexpr std::uint64_t kBlock = v6::kBlockSize;
constexpr std::uint64_t kMaxInodes = 0x7FFF'FFFF;
constexpr std::uint64_t kInodeBytes = sizeof(erofs::InodeExtended);

Status CheckInode(const TreeInode& inode, const std::string& path) {
  const char* problem = nullptr;
  switch (inode.mode & S_IFMT) {
    case S_IFLNK:
      if (inode.target.empty()) problem = "is a symlink without a target";
      if (inode.target.size() > kMaxTreePath) problem = "has a symlink target over 4096 bytes";
      break;
    case S_IFDIR:
    case S_IFREG:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
      break;
    default:
      problem = "has a type that RAFS does not know";
  }
  if (inode.mtime_nsec >= 1'000'000'000) problem = "has a modification time without a meaning";
  if (problem == nullptr) return {};
  return Error(Code::kInvalidArgument, fmt::format("'/{}' {}", path, problem));
}

}  // namespace

Result<InodePlan> InodePlan::Make(const Tree& tree) {
  InodePlan plan;
  plan.cursor_ = kBlock;  // nid 0 must not be used: readdir of glibc hides inode number 0
  std::string path;
  DAVIT_TRY(plan.AddDirectory(*tree.root, *tree.root, path));
  plan.cursor_ = AlignUp(plan.cursor_, kBlock);
  return plan;
}

std::uint64_t InodePlan::NidOf(const TreeInode* inode) const {
  return inodes_[index_.at(inode)].offset / erofs::kNidSize;
}

Status InodePlan::AddDirectory(const TreeInode& dir, const TreeInode& parent, std::string& path) {
  if (path.size() > kMaxTreePath) {
    return Error(Code::kInvalidArgument, fmt::format("path '/{}...' is longer than {} bytes",
                                                     path.substr(0, 100), kMaxTreePath));
  }
  DAVIT_TRY(Add(dir, &parent, path));
  const std::size_t length = path.size();
  const auto enter = [&](const std::string& name) {
    if (!path.empty()) path += '/';
    path += name;
  };
  for (const auto& [name, child] : dir.children) {
    if (name.empty() || name.size() > 255 || name == "." || name == ".." ||
        name.find('/') != std::string::npos || name.find('\0') != std::string::npos) {
      return Error(Code::kInvalidArgument,
                   fmt::format("directory '/{}' has an entry with the impossible name '{}'", path,
                               name.substr(0, 300)));
    }
    if (child->IsDirectory()) continue;
    if (const auto known = index_.find(child.get()); known != index_.end()) {
      ++inodes_[known->second].nlink;
      continue;
    }
    enter(name);
    DAVIT_TRY(Add(*child, nullptr, path));
    path.resize(length);
  }
  for (const auto& [name, child] : dir.children) {
    if (!child->IsDirectory()) continue;
    enter(name);
    DAVIT_TRY(AddDirectory(*child, dir, path));
    path.resize(length);
  }
  return {};
}

Status InodePlan::Add(const TreeInode& inode, const TreeInode* parent, const std::string& path) {
  DAVIT_TRY(CheckInode(inode, path));
  if (inodes_.size() >= kMaxInodes) {
    return Error(Code::kInvalidArgument,
                 fmt::format("the tree has more than {} inodes", kMaxInodes));
  }
  PlannedInode planned{.inode = &inode, .parent = parent, .nlink = 1};
  auto xattr_bytes = XattrBlockSize(inode.xattrs);
  if (!xattr_bytes.ok()) {
    return std::move(xattr_bytes).error().WithContext(fmt::format("'/{}'", path));
  }
  planned.xattr_bytes = *xattr_bytes;
  has_xattrs_ = has_xattrs_ || planned.xattr_bytes != 0;
  if (inode.IsDirectory()) {
    planned.size = DirectorySize(inode);
    planned.nlink = 2;
    for (const auto& [name, child] : inode.children) planned.nlink += child->IsDirectory() ? 1 : 0;
  } else if (inode.IsRegular()) {
    planned.size = inode.size;
  } else if (S_ISLNK(inode.mode)) {
    planned.size = inode.target.size();
  }
  Place(planned);
  if (!index_.emplace(&inode, static_cast<std::uint32_t>(inodes_.size())).second) {
    return Error(Code::kInvalidArgument,
                 fmt::format("directory '/{}' has more than one name", path));
  }
  inodes_.push_back(planned);
  return {};
}

void InodePlan::Place(PlannedInode& planned) {
  const std::uint64_t header = kInodeBytes + planned.xattr_bytes;
  const TreeInode& inode = *planned.inode;
  if (inode.IsRegular()) {
    planned.offset =
        Take(AlignUp(header, sizeof(erofs::ChunkIndex)) + 8 * inode.chunks.size(), false);
    return;
  }
  const std::uint64_t tail = planned.size % kBlock;
  planned.inline_tail = tail != 0 && header + tail <= kBlock;
  planned.offset = planned.inline_tail ? Take(header + tail, true) : Take(header, false);
  const std::uint64_t blocks = planned.inline_tail ? planned.size - tail : planned.size;
  if (blocks == 0) return;
  planned.data_offset = AlignUp(cursor_, kBlock);
  AddGap(cursor_, planned.data_offset);
  cursor_ = planned.data_offset + AlignUp(blocks, kBlock);
}

// A place of `need` bytes: the smallest gap that holds it, else at the cursor.
std::uint64_t InodePlan::Take(std::uint64_t need, bool in_one_block) {
  need = AlignUp(need, erofs::kNidSize);
  if (const auto gap = gaps_.lower_bound(need); gap != gaps_.end()) {
    const std::uint64_t begin = gap->second.back();
    const std::uint64_t end = begin + gap->first;
    gap->second.pop_back();
    if (gap->second.empty()) gaps_.erase(gap);
    AddGap(begin + need, end);
    return begin;
  }
  if (in_one_block && cursor_ % kBlock + need > kBlock) {
    const std::uint64_t next = AlignUp(cursor_, kBlock);
    AddGap(cursor_, next);
    cursor_ = next;
  }
  const std::uint64_t offset = cursor_;
  cursor_ += need;
  return offset;
}

void InodePlan::AddGap(std::uint64_t begin, std::uint64_t end) {
  if (end - begin >= kInodeBytes) gaps_[end - begin].push_back(begin);
}

}  // namespace davit::rafs
