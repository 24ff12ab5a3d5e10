#pragma once
// Which blobs of a set a tree uses, in the order of first use (breadth first), as the tables of a
// bootstrap list them.

#include <cstdint>
#include <vector>

#include "rafs/builder/builder.h"

namespace davit::rafs {

struct BlobNumbering {
  std::vector<std::uint32_t> used;      // table position -> position in the set
  std::vector<std::uint32_t> table_of;  // position in the set -> table position, or kUnused
  static constexpr std::uint32_t kUnused = UINT32_MAX;
};

/// Blobs of the same id count as one. kInvalidArgument for references that lead nowhere and above
/// the format's number of blobs.
Result<BlobNumbering> NumberBlobs(const Tree& tree, const BlobSet& blobs, std::uint32_t chunk_size);

}  // namespace davit::rafs
