#pragma once
// Helpers around Metadata::Extents; internal to rafs/fs.

#include <vector>

#include "rafs/metadata/metadata.h"

namespace davit::rafs {

/// A list of extents that the calling thread uses again and again: a read has one or two extents,
/// so that allocating a list for each would cost more than filling it. One at a time per thread.
class ExtentScratch {
 public:
  ExtentScratch() { list_.clear(); }
  ~ExtentScratch();
  ExtentScratch(const ExtentScratch&) = delete;
  ExtentScratch& operator=(const ExtentScratch&) = delete;
  std::vector<Extent>& list() { return list_; }

 private:
  static thread_local std::vector<Extent> list_;
};

/// kDataLoss for a file whose extents make no sense.
Error MalformedFile(InodeId file, const char* why);

/// Extents come from a bootstrap that may be hostile: they must follow each other without gaps and
/// their ends must fit in 64 bits.
Status CheckExtent(InodeId file, const Extent& extent, std::uint64_t expected_offset);

}  // namespace davit::rafs
