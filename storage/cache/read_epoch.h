#pragma once
// Keeps the evictor from destroying data under a reader, without a lock on the read path.
//
// A reader announces itself, then tests the ready bits, then reads the file, then leaves. The
// evictor clears the bits, then waits until every reader is gone that may have seen them set.
// Readers that come later see the cleared bits. Two counters take turns, so that a steady stream
// of new readers does not keep the evictor waiting.

#include <array>
#include <atomic>

#include "common/base/sync.h"

namespace davit::storage {

class ReadEpoch {
 public:
  /// A reader's presence; short: no waiting for the network while it lives.
  class Guard {
   public:
    explicit Guard(ReadEpoch& epoch) : epoch_(epoch), slot_(epoch.Enter()) {}
    ~Guard() { epoch_.Leave(slot_); }
    Guard(const Guard&) = delete;
    Guard& operator=(const Guard&) = delete;

   private:
    ReadEpoch& epoch_;
    const unsigned slot_;
  };

  /// One evictor at a time. False when readers stay for longer than `timeout`; nothing may be
  /// destroyed then. Call Ready() before clearing bits.
  bool WaitForReaders(Duration timeout);
  /// Waits until the counter that new readers will use is free of old ones.
  bool Ready(Duration timeout);

 private:
  unsigned Enter() {
    while (true) {
      const unsigned slot = current_.load() & 1U;
      active_[slot].fetch_add(1);
      if ((current_.load() & 1U) == slot) return slot;
      Leave(slot);
    }
  }
  void Leave(unsigned slot) {
    if (active_[slot].fetch_sub(1) == 1 && waiting_.load()) Notify();
  }
  void Notify();
  bool WaitFor(unsigned slot, Duration timeout);

  std::atomic<unsigned> current_{0};
  std::array<std::atomic<int>, 2> active_{};
  std::atomic<bool> waiting_{false};
  Mutex mutex_;
  CondVar left_;
};

}  // namespace davit::storage
