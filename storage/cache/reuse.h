#pragma once
// Content that another blob of the node holds already need not be fetched.

#include <cstdint>
#include <vector>

#include "storage/cache/flight.h"

namespace davit::storage {

/// Copies those of the flight's units whose chunks can all be found in other blobs, verified by
/// their digests, publishes them, and gives the units that have to be fetched. Where the content
/// is said to be is only a hint: it may have been evicted, or be wrong.
std::vector<std::uint32_t> CopyFromOtherBlobs(Flight& flight, std::vector<std::uint32_t> units);

}  // namespace davit::storage
