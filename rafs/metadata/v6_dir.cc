#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <array>

#include "rafs/metadata/v6_reader.h"

namespace davit::rafs {
namespace {

constexpr std::size_t kMaxName = 255;
/// A cookie is the position in the directory: block number, then entry number. A block has far
/// fewer entries than this.
constexpr std::uint64_t kCookieBlock = 4096;

}  // namespace

Result<V6Inode> V6Metadata::Directory(InodeId inode) const {
  DAVIT_TRY_ASSIGN(V6Inode dir, Inode(inode));
  if (!S_ISDIR(dir.attributes.mode)) {
    return Error(Code::kInvalidArgument, fmt::format("inode {} is not a directory", inode.value),
                 ENOTDIR);
  }
  return dir;
}

Result<V6Metadata::DirBlock> V6Metadata::ReadDirBlock(const V6Inode& dir,
                                                      std::uint64_t index) const {
  DAVIT_TRY_ASSIGN(const Bytes bytes, ContentBlock(dir, index));
  DAVIT_TRY_ASSIGN(const auto first, LoadAt<erofs::Dirent>(bytes, 0, "directory"));
  if (first.nameoff < sizeof(erofs::Dirent) || first.nameoff % sizeof(erofs::Dirent) != 0 ||
      first.nameoff >= bytes.size()) {
    return Damaged(fmt::format("directory {}: block {} has its names at {}",
                               dir.attributes.id.value, index, first.nameoff));
  }
  return DirBlock{bytes, static_cast<std::uint32_t>(first.nameoff / sizeof(erofs::Dirent))};
}

Result<V6Metadata::RawEntry> V6Metadata::ReadDirEntry(const DirBlock& block,
                                                      std::uint32_t index) const {
  DAVIT_TRY_ASSIGN(const auto raw,
                   LoadAt<erofs::Dirent>(block.bytes, index * sizeof(erofs::Dirent), "directory"));
  std::size_t end = block.bytes.size();
  const bool last = index + 1 == block.count;
  if (!last) {
    DAVIT_TRY_ASSIGN(
        const auto next,
        LoadAt<erofs::Dirent>(block.bytes, (index + 1) * sizeof(erofs::Dirent), "directory"));
    end = next.nameoff;
  }
  if (raw.nameoff < block.count * sizeof(erofs::Dirent) || raw.nameoff >= end ||
      end > block.bytes.size()) {
    return Damaged("a directory entry's name is outside of its block");
  }
  std::string_view name = AsText(block.bytes.subspan(raw.nameoff, end - raw.nameoff));
  // Only the last name of a block may be followed by padding.
  if (last) name = name.substr(0, name.find('\0'));
  if (name.empty() || name.size() > kMaxName || name.find('/') != std::string_view::npos ||
      name.find('\0') != std::string_view::npos) {
    return Damaged("a directory entry has an impossible name");
  }
  if (raw.nid == 0) return Damaged("a directory entry leads to inode 0");
  return RawEntry{raw.nid, raw.file_type, name};
}

Result<std::uint32_t> V6Metadata::EntryType(const RawEntry& entry) const {
  constexpr std::array<std::uint32_t, 8> kTypes{0,       S_IFREG, S_IFDIR,  S_IFCHR,
                                                S_IFBLK, S_IFIFO, S_IFSOCK, S_IFLNK};
  if (entry.type != 0 && entry.type < kTypes.size()) return kTypes[entry.type];
  DAVIT_TRY_ASSIGN(const V6Inode inode, Inode({entry.nid}));
  return inode.attributes.mode & S_IFMT;
}

Result<std::optional<InodeId>> V6Metadata::FindInBlock(const DirBlock& block,
                                                       std::string_view name) const {
  std::uint32_t low = 0;
  std::uint32_t high = block.count;
  while (low < high) {
    const std::uint32_t middle = low + (high - low) / 2;
    DAVIT_TRY_ASSIGN(const RawEntry entry, ReadDirEntry(block, middle));
    const int order = entry.name.compare(name);
    if (order == 0) return std::optional(InodeId{entry.nid});
    if (order < 0) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return std::optional<InodeId>();
}

Result<InodeId> V6Metadata::Lookup(InodeId parent, std::string_view name) const {
  DAVIT_TRY_ASSIGN(const V6Inode dir, Directory(parent));
  if (name == ".") return parent;
  // The block to look in is the last one whose first name is not greater than `name`.
  std::uint64_t low = 0;
  std::uint64_t high = DivUp(dir.attributes.size, v6::kBlockSize);
  while (low < high) {
    const std::uint64_t middle = low + (high - low) / 2;
    DAVIT_TRY_ASSIGN(const DirBlock block, ReadDirBlock(dir, middle));
    DAVIT_TRY_ASSIGN(const RawEntry first, ReadDirEntry(block, 0));
    if (first.name <= name) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  if (low > 0) {
    DAVIT_TRY_ASSIGN(const DirBlock block, ReadDirBlock(dir, low - 1));
    DAVIT_TRY_ASSIGN(const auto found, FindInBlock(block, name));
    if (found) return *found;
  }
  return Error(Code::kNotFound, fmt::format("no such entry in directory {}", parent.value));
}

Status V6Metadata::ListDir(
    InodeId inode, std::uint64_t cookie,
    const std::function<bool(const DirEntry&, std::uint64_t next)>& fn) const {
  DAVIT_TRY_ASSIGN(const V6Inode dir, Directory(inode));
  const std::uint64_t blocks = DivUp(dir.attributes.size, v6::kBlockSize);
  std::uint64_t entry_index = cookie % kCookieBlock;
  for (std::uint64_t b = cookie / kCookieBlock; b < blocks; ++b, entry_index = 0) {
    DAVIT_TRY_ASSIGN(const DirBlock block, ReadDirBlock(dir, b));
    for (; entry_index < block.count; ++entry_index) {
      const auto i = static_cast<std::uint32_t>(entry_index);
      DAVIT_TRY_ASSIGN(const RawEntry raw, ReadDirEntry(block, i));
      DAVIT_TRY_ASSIGN(const std::uint32_t type, EntryType(raw));
      const std::uint64_t next =
          i + 1 < block.count ? b * kCookieBlock + i + 1 : (b + 1) * kCookieBlock;
      if (!fn(DirEntry{{raw.nid}, raw.name, type}, next)) return {};
    }
  }
  return {};
}

}  // namespace davit::rafs
