#pragma once
// Reads that wait for bytes which are not local yet; internal to rafs/fuse.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <stop_token>
#include <vector>

#include "common/base/sync.h"
#include "rafs/fuse/session.h"

namespace davit::rafs {

/// One such read. `request` is the transport's handle for the reply.
struct SlowRead {
  void* request = nullptr;
  std::uint64_t node = 0, offset = 0, size = 0;
  int reader = 0;  // thread id of the reader as the kernel shows it to us; 0: not visible
  TimePoint since;
  std::stop_source stop;     // the reader gave up, or the session ends
  bool interrupted = false;  // set by Interrupt: it was the reader
};

/// Bounds how many threads wait at a time, so that some are always left for requests that need no
/// network. Further reads queue as records of some 100 bytes, without a thread and a buffer.
class SlowReads {
 public:
  explicit SlowReads(std::size_t max_waiting) : max_waiting_(max_waiting) {}

  /// Gives the read back when the caller may wait for it now (Finish must follow); null when it
  /// was queued. After CancelAll every read comes back with its stop requested.
  std::unique_ptr<SlowRead> Begin(std::unique_ptr<SlowRead> read);
  /// The caller has answered a read that Begin or Finish gave it; the next queued read, if any.
  std::unique_ptr<SlowRead> Finish(SlowRead* answered);

  /// The reader gave up. Called for a read between Begin and its reply.
  void Interrupt(SlowRead* read);
  /// Queued reads that were interrupted: to be answered by the caller. Cheap when there are none.
  std::vector<std::unique_ptr<SlowRead>> TakeInterrupted();
  /// Stops everything that waits; the queued reads are to be answered by the caller.
  std::vector<std::unique_ptr<SlowRead>> CancelAll();
  bool cancelled() const { return cancelled_.load(std::memory_order_acquire); }

  /// The queued ones; those that wait have a thread and are in the in-flight table.
  void ListQueued(TimePoint now, std::vector<InflightRequest>& out) const;

 private:
  const std::size_t max_waiting_;
  std::atomic<bool> cancelled_{false};
  std::atomic<int> interrupted_in_queue_{0};
  mutable Mutex mutex_;
  std::vector<SlowRead*> waiting_ DAVIT_GUARDED_BY(mutex_);
  std::deque<std::unique_ptr<SlowRead>> queued_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::rafs
