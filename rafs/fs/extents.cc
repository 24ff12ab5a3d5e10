#include "rafs/fs/extents.h"

#include <string>

namespace davit::rafs {
namespace {
// A list that grew beyond this (a scattered file, asked for as a whole) is given back.
constexpr std::size_t kKeepExtents = 256;
}  // namespace

thread_local std::vector<Extent> ExtentScratch::list_;

ExtentScratch::~ExtentScratch() {
  if (list_.capacity() > kKeepExtents) std::vector<Extent>().swap(list_);
}

Error MalformedFile(InodeId file, const char* why) {
  return Error(Code::kDataLoss,
               "inode " + std::to_string(file.value) + " of the image is damaged: " + why)
      .WithHint("check the image with 'davit check' and build it again");
}

// Extents come from a bootstrap that may be hostile: they must cover the range without gaps or
// overlaps, and lie inside the blob's address space.
Status CheckExtent(InodeId file, const Extent& extent, std::uint64_t expected_offset) {
  if (extent.length == 0) return MalformedFile(file, "an extent is empty");
  if (extent.file_offset != expected_offset) return MalformedFile(file, "extents leave a gap");
  if (!CheckedAdd(extent.file_offset, extent.length) ||
      !CheckedAdd(extent.blob_offset, extent.length)) {
    return MalformedFile(file, "an extent ends past 2^64");
  }
  return {};
}

}  // namespace davit::rafs
