#include "storage/cache/evictor.h"

#include <algorithm>

#include "common/base/log.h"

namespace davit::storage {
namespace {

struct Candidate {
  std::uint32_t stamp;
  std::uint32_t group;
  std::size_t core;
  std::uint64_t bytes;
};

// Groups of chunks that hold something, with the time they were last read.
void Collect(const BlobCore& core, std::size_t index, std::vector<Candidate>& out) {
  const LoadedMap* loaded = core.loaded();
  if (loaded == nullptr) return;
  const std::uint32_t count = loaded->map->chunk_count();
  for (std::uint32_t first = 0; first < count; first += 1U << kGroupShift) {
    std::uint64_t bytes = 0;
    for (std::uint32_t i = first; i < std::min(count, first + (1U << kGroupShift)); ++i) {
      if (loaded->Holds(i)) bytes += DiskSize(loaded->map->ChunkAt(i).size);
    }
    if (bytes == 0) continue;
    const std::uint32_t group = first >> kGroupShift;
    out.push_back(
        Candidate{loaded->stamps[group].load(std::memory_order_relaxed), group, index, bytes});
  }
}

}  // namespace

std::uint64_t EvictLeastRecent(const std::vector<std::shared_ptr<BlobCore>>& cores,
                               std::uint64_t bytes) {
  std::vector<Candidate> candidates;
  for (std::size_t i = 0; i < cores.size(); ++i) Collect(*cores[i], i, candidates);
  std::sort(candidates.begin(), candidates.end(), [](const Candidate& a, const Candidate& b) {
    return std::tie(a.stamp, a.core, a.group) < std::tie(b.stamp, b.core, b.group);
  });
  std::vector<std::vector<std::uint32_t>> chosen(cores.size());
  std::uint64_t sum = 0;
  for (const Candidate& c : candidates) {
    if (sum >= bytes) break;
    chosen[c.core].push_back(c.group);
    sum += c.bytes;
  }
  std::uint64_t freed = 0;
  for (std::size_t i = 0; i < cores.size(); ++i) {
    if (chosen[i].empty()) continue;
    const Result<std::uint64_t> one = cores[i]->EvictGroups(chosen[i]);
    if (one.ok()) {
      freed += *one;
    } else {
      log::Warn("cannot evict", {{"blob", cores[i]->id().value},
                                 {"image", cores[i]->ImageNames()},
                                 {"error", one.error()}});
    }
  }
  return freed;
}

}  // namespace davit::storage
