#include "tests/support/fake_registry/upload_gate.h"

#include <algorithm>

namespace davit::testing {
namespace {

constexpr std::chrono::seconds kPatience{10};
constexpr std::chrono::milliseconds kLinger{300};

}  // namespace

void UploadGate::Enter() {
  MutexLock lock(mutex_);
  most_ = std::max(most_, ++now_);
  changed_.NotifyAll();
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (most_ < hold_ && !open_) {
    const auto now = std::chrono::steady_clock::now();
    if (now >= deadline) break;
    changed_.WaitFor(mutex_, deadline - now);
  }
  const auto end = std::chrono::steady_clock::now() + kLinger;
  while (hold_ > 0 && !open_) {
    const auto now = std::chrono::steady_clock::now();
    if (now >= end) break;
    changed_.WaitFor(mutex_, end - now);
  }
  open_ = true;
  changed_.NotifyAll();
}

void UploadGate::Leave() {
  MutexLock lock(mutex_);
  --now_;
}

int UploadGate::most() const {
  MutexLock lock(mutex_);
  return most_;
}

}  // namespace davit::testing
