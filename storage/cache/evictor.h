#pragma once
// Chooses what goes when space is needed: groups of chunks of open blobs, least recently read
// first. (Blobs that nobody uses go before, as a whole; the cache does that.)

#include <cstdint>
#include <memory>
#include <vector>

#include "storage/cache/blob_core.h"

namespace davit::storage {

/// Evicts at least `bytes` if it can; the number of bytes evicted.
std::uint64_t EvictLeastRecent(const std::vector<std::shared_ptr<BlobCore>>& cores,
                               std::uint64_t bytes);

}  // namespace davit::storage
