#include "rafs/builder/xattr_block.h"

#include <fmt/format.h>

#include <cstring>
#include <optional>

#include "erofs/format/erofs_fs.h"

namespace davit::rafs {
namespace {

struct SplitName {
  erofs::XattrIndex index;
  std::string_view rest;
};

std::optional<SplitName> Split(std::string_view name) {
  using erofs::XattrIndex;
  if (name == "system.posix_acl_access") return SplitName{XattrIndex::kPosixAclAccess, {}};
  if (name == "system.posix_acl_default") return SplitName{XattrIndex::kPosixAclDefault, {}};
  static constexpr std::pair<std::string_view, XattrIndex> kPrefixes[] = {
      {"user.", XattrIndex::kUser},
      {"trusted.", XattrIndex::kTrusted},
      {"security.", XattrIndex::kSecurity}};
  for (const auto& [prefix, index] : kPrefixes) {
    if (name.starts_with(prefix) && name.size() > prefix.size()) {
      return SplitName{index, name.substr(prefix.size())};
    }
  }
  return std::nullopt;
}

constexpr std::uint64_t kMaxBlock = sizeof(erofs::XattrHeader) + 4ULL * (UINT16_MAX - 1);

}  // namespace

bool XattrNameIsSupported(std::string_view name) {
  const auto split = Split(name);
  return split && split->rest.size() <= UINT8_MAX;
}

Result<std::uint32_t> XattrBlockSize(const std::map<std::string, std::string>& xattrs) {
  if (xattrs.empty()) return 0U;
  std::uint64_t size = sizeof(erofs::XattrHeader);
  for (const auto& [name, value] : xattrs) {
    const auto split = Split(name);
    if (!split || split->rest.size() > UINT8_MAX) {
      return Error(Code::kInvalidArgument,
                   fmt::format("extended attribute '{}' cannot be stored", name))
          .WithHint("RAFS has user., trusted., security. and POSIX ACL attributes");
    }
    if (value.size() > UINT16_MAX) {
      return Error(Code::kInvalidArgument,
                   fmt::format("extended attribute '{}' has {} bytes; the limit is {}", name,
                               value.size(), UINT16_MAX));
    }
    size += AlignUp(sizeof(erofs::XattrEntry) + split->rest.size() + value.size(), 4);
  }
  if (size > kMaxBlock) {
    return Error(Code::kInvalidArgument,
                 fmt::format("the extended attributes take {} bytes; the limit is {} for a file",
                             size, kMaxBlock));
  }
  return static_cast<std::uint32_t>(size);
}

void WriteXattrBlock(const std::map<std::string, std::string>& xattrs, MutableBytes out) {
  if (xattrs.empty()) return;
  std::size_t at = sizeof(erofs::XattrHeader);  // all zero
  for (const auto& [name, value] : xattrs) {
    const SplitName split = *Split(name);
    const erofs::XattrEntry entry{.name_len = static_cast<std::uint8_t>(split.rest.size()),
                                  .name_index = static_cast<std::uint8_t>(split.index),
                                  .value_size = static_cast<std::uint16_t>(value.size())};
    std::memcpy(out.data() + at, &entry, sizeof entry);
    at += sizeof entry;
    std::memcpy(out.data() + at, split.rest.data(), split.rest.size());
    at += split.rest.size();
    std::memcpy(out.data() + at, value.data(), value.size());
    at = AlignUp(at + value.size(), 4);
  }
}

std::uint16_t XattrInodeCount(std::uint32_t block_size) {
  if (block_size == 0) return 0;
  return static_cast<std::uint16_t>((block_size - sizeof(erofs::XattrHeader)) / 4 + 1);
}

}  // namespace davit::rafs
