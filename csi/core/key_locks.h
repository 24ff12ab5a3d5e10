#pragma once
// One operation at a time on a volume and on a target; a second one is refused, not queued, as
// the CSI specification wants it.

#include <set>
#include <string>
#include <utility>
#include <vector>

#include "common/base/sync.h"

namespace davit::csi {

/// Thread-safe.
class KeyLocks {
 public:
  /// Holds its keys until destruction. Empty when one of them was taken.
  class Hold {
   public:
    Hold() = default;
    Hold(KeyLocks& locks, std::vector<std::string> keys) : locks_(&locks), keys_(std::move(keys)) {}
    Hold(Hold&& other) noexcept
        : locks_(std::exchange(other.locks_, nullptr)), keys_(std::move(other.keys_)) {}
    Hold& operator=(Hold&&) = delete;
    ~Hold() {
      if (locks_ != nullptr) locks_->Release(keys_);
    }
    explicit operator bool() const { return locks_ != nullptr; }

   private:
    KeyLocks* locks_ = nullptr;
    std::vector<std::string> keys_;
  };

  /// All of `keys` (which differ) or none.
  Hold TryLock(std::vector<std::string> keys) {
    MutexLock lock(mutex_);
    for (const std::string& key : keys) {
      if (held_.contains(key)) return {};
    }
    held_.insert(keys.begin(), keys.end());
    return Hold(*this, std::move(keys));
  }

 private:
  void Release(const std::vector<std::string>& keys) {
    MutexLock lock(mutex_);
    for (const std::string& key : keys) held_.erase(key);
  }

  Mutex mutex_;
  std::set<std::string> held_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::csi
