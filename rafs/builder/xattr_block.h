#pragma once
// The on-disk form of an inode's extended attributes.

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace davit::rafs {

/// Whether the format can hold an attribute of this name (its namespace is known, its name fits).
bool XattrNameIsSupported(std::string_view name);

/// Bytes of the block, 0 without attributes. kInvalidArgument, naming the attribute, for one that
/// the format cannot hold.
Result<std::uint32_t> XattrBlockSize(const std::map<std::string, std::string>& xattrs);
/// Writes XattrBlockSize() bytes to the front of `out`.
void WriteXattrBlock(const std::map<std::string, std::string>& xattrs, MutableBytes out);
/// The inode's xattr_icount for a block of that size.
std::uint16_t XattrInodeCount(std::uint32_t block_size);

}  // namespace davit::rafs
