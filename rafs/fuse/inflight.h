#pragma once
// What every serving thread is doing, for the hung-I/O report and the counters; internal to
// rafs/fuse.

#include <array>
#include <atomic>
#include <cstdint>
#include <memory>
#include <vector>

#include "common/base/clock.h"
#include "rafs/fuse/session.h"

namespace davit::rafs {

enum class Operation : std::uint8_t {
  kNone,
  kLookup,
  kGetattr,
  kReadlink,
  kOpen,
  kRead,
  kReaddir,
  kStatfs,
  kXattr,
};
inline constexpr std::size_t kOperationCount = 9;
const char* OperationName(Operation operation);

/// One thread's slot: written by its thread only, without locks, read by anybody.
class alignas(64) InflightSlot {
 public:
  void Begin(Operation operation, std::uint64_t inode, std::uint64_t offset, std::uint64_t size);
  /// As Begin, for a request that was begun in another slot: shown, not counted again. `since`:
  /// when it was begun.
  void Resume(Operation operation, std::uint64_t inode, std::uint64_t offset, std::uint64_t size,
              TimePoint since);
  void End();
  void CountError() { Bump(errors_, 1); }
  void CountWaitedRead() { Bump(waited_reads_, 1); }
  void CountReadBytes(std::uint64_t bytes) { Bump(read_bytes_, bytes); }

  /// False when the thread is between requests.
  bool Describe(TimePoint now, InflightRequest& out) const;
  void AddTo(FuseStats& stats) const;

 private:
  friend class InflightTable;
  // Only one thread writes, so that load and store are enough (no locked instruction).
  static void Bump(std::atomic<std::uint64_t>& counter, std::uint64_t by) {
    counter.store(counter.load(std::memory_order_relaxed) + by, std::memory_order_relaxed);
  }

  std::atomic<bool> taken_{false};
  std::atomic<Operation> operation_{Operation::kNone};
  std::atomic<std::int64_t> start_{0};  // ticks of the steady clock; 0: nothing in flight
  std::atomic<std::uint64_t> inode_{0}, offset_{0}, size_{0};
  std::array<std::atomic<std::uint64_t>, kOperationCount> counts_{};
  std::atomic<std::uint64_t> read_bytes_{0}, errors_{0}, waited_reads_{0};
};

/// A fixed number of slots. Counters of threads that are gone stay in their slots.
class InflightTable {
 public:
  explicit InflightTable(std::size_t slots) : slots_(slots) {}
  /// A free slot, or null when all are taken.
  InflightSlot* Take();
  static void Release(InflightSlot* slot);
  void List(TimePoint now, std::vector<InflightRequest>& out) const;
  FuseStats Totals() const;

 private:
  std::vector<InflightSlot> slots_;
};

}  // namespace davit::rafs
