#include "storage/cache/partial_map.h"

namespace davit::storage {

void PartialMap::Learn(std::uint32_t index, const Chunk& chunk) {
  MutexLock lock(mutex_);
  lessons_[index] = Lesson{chunk.digest, chunk.crc32c};
}

Chunk PartialMap::ChunkAt(std::uint32_t index) const {
  Chunk chunk = base_->ChunkAt(index);
  if (CanVerify(chunk)) return chunk;
  MutexLock lock(mutex_);
  const auto found = lessons_.find(index);
  if (found == lessons_.end()) return chunk;
  chunk.digest = found->second.digest;
  chunk.crc32c = found->second.crc32c;
  return chunk;
}

}  // namespace davit::storage
