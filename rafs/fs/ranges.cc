#include <sys/stat.h>

#include <string>
#include <unordered_set>

#include "rafs/fs/extents.h"
#include "rafs/fs/filesystem.h"

namespace davit::rafs {

Result<std::vector<std::pair<std::uint32_t, ByteRange>>> Filesystem::Ranges(InodeId subtree) const {
  std::vector<std::pair<std::uint32_t, ByteRange>> ranges;
  std::unordered_set<std::uint64_t> linked;  // inodes with several names are counted once
  const auto add_file = [&](const std::string&, const Attributes& attributes) -> Status {
    if (!S_ISREG(attributes.mode) || attributes.size == 0) return {};
    if (attributes.nlink > 1 && !linked.insert(attributes.id.value).second) return {};
    ExtentScratch scratch;
    DAVIT_TRY(metadata().Extents(attributes.id, 0, attributes.size, scratch.list()));
    std::uint64_t at = 0;
    for (const Extent& extent : scratch.list()) {
      DAVIT_TRY(CheckExtent(attributes.id, extent, at));
      at += extent.length;
      if (!extent.blob) continue;
      if (!ranges.empty() && ranges.back().first == *extent.blob &&
          ranges.back().second.offset + ranges.back().second.length == extent.blob_offset) {
        ranges.back().second.length += extent.length;
      } else {
        ranges.emplace_back(*extent.blob, ByteRange{extent.blob_offset, extent.length});
      }
    }
    return {};
  };
  DAVIT_TRY_ASSIGN(const Attributes top, metadata().Stat(subtree));
  if (!S_ISDIR(top.mode)) {
    DAVIT_TRY(add_file("", top));
  } else {
    DAVIT_TRY(Walk(metadata(), subtree, add_file));
  }
  return ranges;
}

}  // namespace davit::rafs
