#include "storage/cache/read_epoch.h"

#include <chrono>

namespace davit::storage {

void ReadEpoch::Notify() {
  MutexLock lock(mutex_);
  left_.NotifyAll();
}

bool ReadEpoch::WaitFor(unsigned slot, Duration timeout) {
  // Real time: readers hold a guard for one disk read only, whatever clock the cache runs on.
  const TimePoint end = std::chrono::steady_clock::now() + timeout;
  MutexLock lock(mutex_);
  waiting_ = true;
  bool free = active_[slot].load() == 0;
  while (!free) {
    const TimePoint now = std::chrono::steady_clock::now();
    if (now >= end) break;
    left_.WaitFor(mutex_, end - now);
    free = active_[slot].load() == 0;
  }
  waiting_ = false;
  return free;
}

bool ReadEpoch::Ready(Duration timeout) { return WaitFor((current_.load() & 1U) ^ 1U, timeout); }

bool ReadEpoch::WaitForReaders(Duration timeout) {
  const unsigned old = current_.fetch_xor(1U) & 1U;
  return WaitFor(old, timeout);
}

}  // namespace davit::storage
