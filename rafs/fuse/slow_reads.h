#pragma once
// Reads that wait for bytes which are not local yet; internal to rafs/fuse.

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <stop_token>
#include <thread>
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
  std::stop_source stop;  // requested when the reader is being killed or the session ends
  std::atomic<bool> signalled{false};  // the reader got some signal
  std::atomic<bool> killed{false};     // ... that ends it
};

/// Bounds how many threads wait at a time, so that some are always left for requests that need no
/// network. Further reads queue as records of some 200 bytes, without a thread and a buffer.
///
/// A signal ends a wait only when it ends the reader, as on local disks: an EINTR from read(2) or a
/// SIGBUS from a page fault would surprise programs that handle signals (Go sends itself many).
/// The kernel tells of the first signal only, so that readers which got one are then watched.
class SlowReads {
 public:
  using Reads = std::vector<std::unique_ptr<SlowRead>>;
  /// Answers queued reads that were taken out of the queue.
  using Answer = std::function<void(Reads)>;

  /// `answer` is called on the watching thread, until CancelAll has returned.
  SlowReads(std::size_t max_waiting, Answer answer);
  ~SlowReads();
  SlowReads(const SlowReads&) = delete;
  SlowReads& operator=(const SlowReads&) = delete;

  /// Gives the read back when the caller may wait for it now (Finish must follow); null when it
  /// was queued. After CancelAll every read comes back with its stop requested.
  std::unique_ptr<SlowRead> Begin(std::unique_ptr<SlowRead> read);
  /// The caller has answered a read that Begin or Finish gave it; the next queued read, if any.
  std::unique_ptr<SlowRead> Finish(SlowRead* answered);
  /// The reader got a signal. Takes no time: libfuse calls it under a lock. A read may get
  /// one from before Begin until its reply.
  void Signal(SlowRead* read);
  /// Stops everything that waits; the queued reads are to be answered by the caller.
  Reads CancelAll();

  /// The queued ones; those that wait have a thread and are in the in-flight table.
  void ListQueued(TimePoint now, std::vector<InflightRequest>& out) const;

 private:
  void StartWatching() DAVIT_REQUIRES(mutex_);
  void Watch();
  void StopKilled(Reads& unqueued) DAVIT_EXCLUDES(mutex_);

  const std::size_t max_waiting_;
  const Answer answer_;
  mutable Mutex mutex_;
  CondVar wake_;
  bool cancelled_ DAVIT_GUARDED_BY(mutex_) = false;
  bool watching_ DAVIT_GUARDED_BY(mutex_) = false;      // the watcher has not decided to end
  std::size_t signalled_ DAVIT_GUARDED_BY(mutex_) = 0;  // news for the watcher
  std::thread watcher_ DAVIT_GUARDED_BY(mutex_);
  std::vector<SlowRead*> waiting_ DAVIT_GUARDED_BY(mutex_);
  std::deque<std::unique_ptr<SlowRead>> queued_ DAVIT_GUARDED_BY(mutex_);
};

/// A signal that ends this thread is on its way, or the thread is gone. False for 0.
bool IsBeingKilled(int thread_id);

}  // namespace davit::rafs
