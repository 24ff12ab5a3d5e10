// Extended attributes: a header, the numbers of shared attributes (kept in one area of the image),
// then the inode's own ones.

#include <fmt/format.h>

#include <array>

#include "rafs/metadata/v6_reader.h"

namespace davit::rafs {
namespace {

/// By prefix number; empty where the format has none. The ACL names are complete as they are.
constexpr std::array<std::string_view, 7> kPrefixes{
    "", "user.",    "system.posix_acl_access", "system.posix_acl_default", "trusted.",
    "", "security."};

constexpr std::uint64_t kEntryAlign = 4;

}  // namespace

Result<V6Metadata::RawXattr> V6Metadata::ReadXattr(Bytes area, std::uint64_t offset,
                                                   std::uint64_t& size) const {
  DAVIT_TRY_ASSIGN(const auto head, LoadAt<erofs::XattrEntry>(area, offset, "extended attribute"));
  const std::uint64_t body = std::uint64_t{head.name_len} + head.value_size;
  DAVIT_TRY_ASSIGN(const Bytes bytes,
                   SubBytes(area, offset + sizeof head, body, "extended attribute"));
  if (head.name_index >= kPrefixes.size() || kPrefixes[head.name_index].empty()) {
    return Error(Code::kUnsupported,
                 fmt::format("extended attribute with the unknown prefix {}", head.name_index));
  }
  size = AlignUp(sizeof head + body, kEntryAlign);
  const Bytes name = bytes.first(head.name_len);
  if (AsText(name).find('\0') != std::string_view::npos) {
    return Damaged("an extended attribute's name contains a NUL");
  }
  return RawXattr{head.name_index, AsText(name), bytes.subspan(name.size())};
}

Status V6Metadata::ForEachXattr(const V6Inode& inode, const XattrFn& fn) const {
  if (inode.xattr_size == 0) return {};
  DAVIT_TRY_ASSIGN(const Bytes area,
                   SubBytes(image_, inode.xattr_offset, inode.xattr_size, "extended attributes"));
  DAVIT_TRY_ASSIGN(const auto header, LoadAt<erofs::XattrHeader>(area, 0, "extended attributes"));
  std::uint64_t at = sizeof header;
  std::uint64_t size = 0;
  const std::uint64_t shared_base = std::uint64_t{super_.erofs.xattr_blkaddr} * v6::kBlockSize;
  for (unsigned i = 0; i < header.shared_count; ++i, at += sizeof(std::uint32_t)) {
    DAVIT_TRY_ASSIGN(const auto id, LoadAt<std::uint32_t>(area, at, "extended attributes"));
    DAVIT_TRY_ASSIGN(const RawXattr xattr,
                     ReadXattr(image_, shared_base + std::uint64_t{id} * kEntryAlign, size));
    DAVIT_TRY_ASSIGN(const bool more, fn(xattr));
    if (!more) return {};
  }
  while (at < area.size()) {
    DAVIT_TRY_ASSIGN(const RawXattr xattr, ReadXattr(area, at, size));
    DAVIT_TRY_ASSIGN(const bool more, fn(xattr));
    if (!more) return {};
    at += size;
  }
  return {};
}

Status V6Metadata::ListXattrs(
    InodeId id, const std::function<void(std::string_view name, Bytes value)>& fn) const {
  DAVIT_TRY_ASSIGN(const V6Inode inode, Inode(id));
  std::string name;
  return ForEachXattr(inode, [&](const RawXattr& xattr) -> Result<bool> {
    name = kPrefixes[xattr.prefix];
    name += xattr.suffix;
    fn(name, xattr.value);
    return true;
  });
}

Result<std::string> V6Metadata::GetXattr(InodeId id, std::string_view name) const {
  DAVIT_TRY_ASSIGN(const V6Inode inode, Inode(id));
  std::optional<std::string> found;
  DAVIT_TRY(ForEachXattr(inode, [&](const RawXattr& xattr) -> Result<bool> {
    const std::string_view prefix = kPrefixes[xattr.prefix];
    if (!name.starts_with(prefix) || name.substr(prefix.size()) != xattr.suffix) return true;
    found = AsText(xattr.value);
    return false;
  }));
  if (found) return *found;
  return Error(Code::kNotFound,
               fmt::format("inode {} has no extended attribute of that name", id.value), ENODATA);
}

}  // namespace davit::rafs
