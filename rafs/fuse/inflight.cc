#include "rafs/fuse/inflight.h"

#include <algorithm>

namespace davit::rafs {

const char* OperationName(Operation operation) {
  static constexpr std::array<const char*, kOperationCount> kNames = {
      "none", "lookup", "getattr", "readlink", "open", "read", "readdir", "statfs", "xattr"};
  const auto index = static_cast<std::size_t>(operation);
  return index < kNames.size() ? kNames[index] : "unknown";
}

void InflightSlot::Begin(Operation operation, std::uint64_t inode, std::uint64_t offset,
                         std::uint64_t size) {
  Bump(counts_[static_cast<std::size_t>(operation)], 1);
  Resume(operation, inode, offset, size, std::chrono::steady_clock::now());
}

void InflightSlot::Resume(Operation operation, std::uint64_t inode, std::uint64_t offset,
                          std::uint64_t size, TimePoint since) {
  // Released, and acquired by Describe: whoever sees a value of this request also sees that the
  // request before it has ended.
  operation_.store(operation, std::memory_order_release);
  inode_.store(inode, std::memory_order_release);
  offset_.store(offset, std::memory_order_release);
  size_.store(size, std::memory_order_release);
  start_.store(since.time_since_epoch().count(), std::memory_order_release);
}

void InflightSlot::End() { start_.store(0, std::memory_order_release); }

bool InflightSlot::Describe(TimePoint now, InflightRequest& out) const {
  const std::int64_t start = start_.load(std::memory_order_acquire);
  if (start == 0) return false;
  out.operation = OperationName(operation_.load(std::memory_order_acquire));
  out.inode = inode_.load(std::memory_order_acquire);
  out.offset = offset_.load(std::memory_order_acquire);
  out.size = size_.load(std::memory_order_acquire);
  const Duration age = now - TimePoint(Duration(start));
  out.age = std::max(std::chrono::duration_cast<std::chrono::milliseconds>(age),
                     std::chrono::milliseconds(0));
  // The thread may have gone on to its next request while the fields were read.
  return start_.load(std::memory_order_relaxed) == start;
}

void InflightSlot::AddTo(FuseStats& stats) const {
  const auto count = [this](Operation operation) {
    return counts_[static_cast<std::size_t>(operation)].load(std::memory_order_relaxed);
  };
  stats.lookups += count(Operation::kLookup);
  stats.getattrs += count(Operation::kGetattr);
  stats.opens += count(Operation::kOpen);
  stats.reads += count(Operation::kRead);
  stats.readdirs += count(Operation::kReaddir);
  stats.xattrs += count(Operation::kXattr);
  stats.read_bytes += read_bytes_.load(std::memory_order_relaxed);
  stats.waited_reads += waited_reads_.load(std::memory_order_relaxed);
  stats.errors += errors_.load(std::memory_order_relaxed);
}

InflightSlot* InflightTable::Take() {
  for (InflightSlot& slot : slots_) {
    bool free = false;
    if (slot.taken_.compare_exchange_strong(free, true, std::memory_order_acquire)) return &slot;
  }
  return nullptr;
}

void InflightTable::Release(InflightSlot* slot) {
  slot->End();
  slot->taken_.store(false, std::memory_order_release);
}

void InflightTable::List(TimePoint now, std::vector<InflightRequest>& out) const {
  InflightRequest request;
  for (const InflightSlot& slot : slots_) {
    if (slot.Describe(now, request)) out.push_back(request);
  }
}

FuseStats InflightTable::Totals() const {
  FuseStats stats;
  for (const InflightSlot& slot : slots_) slot.AddTo(stats);
  return stats;
}

}  // namespace davit::rafs
