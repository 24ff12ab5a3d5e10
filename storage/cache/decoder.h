#pragma once
// From compressed bytes in memory to verified bytes in the data file.

#include <string>
#include <vector>

#include "storage/cache/blob_core.h"

namespace davit::storage {

/// Complete units of one flight, one after the other in a buffer.
struct UnitBatch {
  struct Piece {
    std::uint32_t unit = 0;
    std::uint32_t offset = 0;  // in the buffer
    std::uint32_t size = 0;
  };
  FlightPtr flight;
  BufferPool::Buffer buffer;
  std::vector<Piece> units;
  std::string served_by;
};

/// Decodes, verifies, writes and publishes; failures go to the flight's waiters.
void DecodeBatch(const UnitBatch& batch);

/// Writes to the blob's data file; when the disk is full, after making room if that is possible.
Status WriteVerified(BlobCore& core, std::uint64_t offset, Bytes data);

}  // namespace davit::storage
