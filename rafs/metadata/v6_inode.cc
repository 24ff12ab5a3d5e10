#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <limits>

#include "rafs/metadata/v6_reader.h"

namespace davit::rafs {
namespace {

constexpr std::uint32_t kMaxNanoseconds = 999'999'999;
constexpr std::uint64_t kMaxSymlink = 4096;
/// What off_t can express; larger sizes break every caller.
constexpr auto kMaxFileSize = static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max());

bool IsFileType(std::uint32_t mode) {
  switch (mode & S_IFMT) {
    case S_IFREG:
    case S_IFDIR:
    case S_IFLNK:
    case S_IFCHR:
    case S_IFBLK:
    case S_IFIFO:
    case S_IFSOCK:
      return true;
    default:
      return false;
  }
}

void FromCompact(const erofs::InodeCompact& raw, const erofs::SuperBlock& sb, V6Inode& out) {
  Attributes& a = out.attributes;
  a.mode = raw.mode;
  a.nlink = raw.nlink;
  a.uid = raw.uid;
  a.gid = raw.gid;
  a.size = raw.size;
  // Compact inodes have no time of their own.
  a.mtime = static_cast<std::int64_t>(sb.build_time);
  a.mtime_nsec = std::min(sb.build_time_nsec, kMaxNanoseconds);
  out.u = raw.i_u;
}

void FromExtended(const erofs::InodeExtended& raw, V6Inode& out) {
  Attributes& a = out.attributes;
  a.mode = raw.mode;
  a.nlink = raw.nlink;
  a.uid = raw.uid;
  a.gid = raw.gid;
  a.size = raw.size;
  a.mtime = static_cast<std::int64_t>(raw.mtime);
  a.mtime_nsec = std::min(raw.mtime_nsec, kMaxNanoseconds);
  out.u = raw.i_u;
}

}  // namespace

Result<V6Inode> V6Metadata::Inode(InodeId inode) const {
  const auto relative = CheckedMul(inode.value, erofs::kNidSize);
  const auto offset = relative ? CheckedAdd(super_.meta_offset(), *relative) : std::nullopt;
  const auto format = offset ? LoadAt<std::uint16_t>(image_, *offset, "inode")
                             : Result<std::uint16_t>(Damaged("inode"));
  if (inode.value == 0 || !format) {
    return Damaged(fmt::format("inode {} is outside of the bootstrap", inode.value));
  }
  constexpr std::uint16_t kKnownFormatBits = 0x0F;
  if ((*format & ~kKnownFormatBits) != 0) {
    return Error(Code::kUnsupported,
                 fmt::format("inode {} has the unknown format {:#x}", inode.value, *format));
  }
  V6Inode out;
  out.attributes.id = inode;
  out.layout = static_cast<erofs::Layout>(*format >> 1);
  if (out.layout != erofs::Layout::kPlain && out.layout != erofs::Layout::kInline &&
      out.layout != erofs::Layout::kChunkBased) {
    return Error(Code::kUnsupported,
                 fmt::format("inode {} has the data layout {} (EROFS compression)", inode.value,
                             *format >> 1));
  }
  std::uint16_t xattr_icount = 0;
  if ((*format & 1) != 0) {
    DAVIT_TRY_ASSIGN(const auto raw, LoadAt<erofs::InodeExtended>(image_, *offset, "inode"));
    FromExtended(raw, out);
    xattr_icount = raw.xattr_icount;
    out.xattr_offset = *offset + sizeof raw;
  } else {
    DAVIT_TRY_ASSIGN(const auto raw, LoadAt<erofs::InodeCompact>(image_, *offset, "inode"));
    FromCompact(raw, super_.erofs, out);
    xattr_icount = raw.xattr_icount;
    out.xattr_offset = *offset + sizeof raw;
  }
  if (xattr_icount > 0) {
    out.xattr_size = sizeof(erofs::XattrHeader) + sizeof(std::uint32_t) * (xattr_icount - 1U);
  }
  const std::uint32_t mode = out.attributes.mode;
  if (!IsFileType(mode) || out.attributes.size > kMaxFileSize) {
    return Damaged(fmt::format("inode {}: impossible mode {:o} or size {}", inode.value, mode,
                               out.attributes.size));
  }
  if (S_ISCHR(mode) || S_ISBLK(mode)) out.attributes.rdev = out.u;
  return out;
}

Result<Attributes> V6Metadata::Stat(InodeId inode) const {
  DAVIT_TRY_ASSIGN(const V6Inode found, Inode(inode));
  return found.attributes;
}

Result<Bytes> V6Metadata::ContentBlock(const V6Inode& inode, std::uint64_t index) const {
  const std::uint64_t size = inode.attributes.size;
  const std::uint64_t offset = index * v6::kBlockSize;  // index is below size / block size
  const std::uint64_t length = std::min<std::uint64_t>(v6::kBlockSize, size - offset);
  if (inode.layout == erofs::Layout::kChunkBased) {
    return Damaged(
        fmt::format("inode {}: a directory or symlink with chunks", inode.attributes.id.value));
  }
  const bool in_tail = inode.layout == erofs::Layout::kInline && offset + length == size;
  if (!in_tail) {
    return SubBytes(image_, (inode.u + index) * v6::kBlockSize, length, "content of an inode");
  }
  if (length == v6::kBlockSize) {
    return Damaged(
        fmt::format("inode {}: an inline tail of a whole block", inode.attributes.id.value));
  }
  return SubBytes(image_, inode.tail_offset(), length, "inline content of an inode");
}

Result<std::string> V6Metadata::ReadLink(InodeId inode) const {
  DAVIT_TRY_ASSIGN(const V6Inode link, Inode(inode));
  if (!S_ISLNK(link.attributes.mode)) {
    return Error(Code::kInvalidArgument, fmt::format("inode {} is not a symlink", inode.value));
  }
  if (link.attributes.size == 0) return std::string();
  if (link.attributes.size > kMaxSymlink) {
    return Damaged(fmt::format("symlink {} has {} bytes", inode.value, link.attributes.size));
  }
  DAVIT_TRY_ASSIGN(const Bytes target, ContentBlock(link, 0));
  if (AsText(target).find('\0') != std::string_view::npos) {
    return Damaged(fmt::format("symlink {} contains a NUL", inode.value));
  }
  return std::string(AsText(target));
}

}  // namespace davit::rafs
