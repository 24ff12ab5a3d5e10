#include "rafs/fuse/slow_reads.h"

#include <algorithm>
#include <utility>

namespace davit::rafs {

std::unique_ptr<SlowRead> SlowReads::Begin(std::unique_ptr<SlowRead> read) {
  const MutexLock lock(mutex_);
  if (cancelled()) {
    read->stop.request_stop();
  } else if (waiting_.size() >= max_waiting_) {
    if (read->interrupted) ++interrupted_in_queue_;
    queued_.push_back(std::move(read));
    return nullptr;
  }
  waiting_.push_back(read.get());
  return read;
}

std::unique_ptr<SlowRead> SlowReads::Finish(SlowRead* answered) {
  const MutexLock lock(mutex_);
  std::erase(waiting_, answered);
  if (queued_.empty() || waiting_.size() >= max_waiting_) return nullptr;
  auto next = std::move(queued_.front());
  queued_.pop_front();
  if (next->interrupted) --interrupted_in_queue_;
  waiting_.push_back(next.get());
  return next;
}

void SlowReads::Interrupt(SlowRead* read) {
  std::stop_source stop;
  {
    const MutexLock lock(mutex_);
    if (read->interrupted) return;
    read->interrupted = true;
    stop = read->stop;
    const auto is_it = [read](const auto& queued) { return queued.get() == read; };
    if (std::ranges::any_of(queued_, is_it)) ++interrupted_in_queue_;
  }
  stop.request_stop();  // runs callbacks of whoever waits: not under the lock
}

std::vector<std::unique_ptr<SlowRead>> SlowReads::TakeInterrupted() {
  std::vector<std::unique_ptr<SlowRead>> out;
  if (interrupted_in_queue_.load(std::memory_order_acquire) == 0) return out;
  const MutexLock lock(mutex_);
  for (auto& read : queued_) {
    if (read->interrupted) out.push_back(std::move(read));
  }
  std::erase(queued_, nullptr);
  interrupted_in_queue_ = 0;
  return out;
}

std::vector<std::unique_ptr<SlowRead>> SlowReads::CancelAll() {
  std::vector<std::stop_source> stops;
  std::vector<std::unique_ptr<SlowRead>> out;
  {
    const MutexLock lock(mutex_);
    cancelled_.store(true, std::memory_order_release);
    stops.reserve(waiting_.size());
    for (const SlowRead* read : waiting_) stops.push_back(read->stop);
    for (auto& read : queued_) out.push_back(std::move(read));
    queued_.clear();
    interrupted_in_queue_ = 0;
  }
  for (std::stop_source& stop : stops) stop.request_stop();
  return out;
}

void SlowReads::ListQueued(TimePoint now, std::vector<InflightRequest>& out) const {
  const MutexLock lock(mutex_);
  for (const auto& read : queued_) {
    out.push_back(
        {.operation = "read (queued)",
         .inode = read->node,
         .offset = read->offset,
         .size = read->size,
         .age = std::chrono::duration_cast<std::chrono::milliseconds>(now - read->since)});
  }
}

}  // namespace davit::rafs
