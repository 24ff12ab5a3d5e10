#pragma once
// Index over a bootstrap's chunk table; internal to rafs/metadata.

#include <memory>
#include <vector>

#include "common/base/bytes.h"
#include "rafs/metadata/metadata.h"

namespace davit::rafs {

/// Positions of the chunk table's records, ordered by (blob, chunk index): four bytes a record
/// beside the mapped table. Immutable.
///
/// Rules: a record of an unknown blob or with a chunk index that its blob cannot have is
/// kDataLoss. Records that say the same are one; two that contradict each other are kDataLoss.
class V6ChunkIndex {
 public:
  /// `table` (whole records) must stay valid as long as `owner` lives. One pass over the table.
  static Result<std::shared_ptr<const V6ChunkIndex>> Build(Bytes table,
                                                           std::shared_ptr<const void> owner,
                                                           const std::vector<BlobRecord>& blobs);
  /// Nothing when the table has no such chunk (nothing in the image refers to it).
  storage::ChunkDigests::Entry Get(std::uint32_t blob, std::uint32_t chunk) const;

 private:
  V6ChunkIndex(Bytes table, std::shared_ptr<const void> owner)
      : table_(table), owner_(std::move(owner)) {}
  std::uint32_t ChunkIndexAt(std::uint32_t position) const;

  Bytes table_;
  std::shared_ptr<const void> owner_;
  std::vector<std::uint32_t> positions_;
  std::vector<std::uint32_t> begin_;  // of each blob in positions_; one more than blobs
};

}  // namespace davit::rafs
