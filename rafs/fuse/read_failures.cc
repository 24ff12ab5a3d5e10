#include "rafs/fuse/read_failures.h"

#include <utility>
#include <vector>

namespace davit::rafs {
namespace {

bool SameRange(const ReadFailure& a, const ReadFailure& b) {
  return a.inode == b.inode && a.offset == b.offset && a.size == b.size;
}

}  // namespace

void ReadFailures::Add(ReadFailure failure) {
  const MutexLock lock(mutex_);
  std::erase_if(failures_, [&](const ReadFailure& old) { return SameRange(old, failure); });
  if (failures_.size() >= kMost) failures_.pop_front();
  failures_.push_back(std::move(failure));
  any_.store(true, std::memory_order_relaxed);
}

void ReadFailures::OnFetched() {
  if (!any_.load(std::memory_order_relaxed)) return;
  const MutexLock lock(mutex_);
  std::erase_if(failures_,
                [](const ReadFailure& old) { return old.error.code() != Code::kDataLoss; });
  any_.store(!failures_.empty(), std::memory_order_relaxed);
}

std::optional<ReadFailure> ReadFailures::Last(const IsLocal& is_local) const {
  if (!any_.load(std::memory_order_relaxed)) return std::nullopt;
  std::vector<ReadFailure> seen;
  {
    const MutexLock lock(mutex_);
    seen.assign(failures_.begin(), failures_.end());
  }
  // Looked at without the lock: a read that fails meanwhile must not wait for this.
  std::vector<ReadFailure> healed;
  std::optional<ReadFailure> last;
  while (!seen.empty() && !last) {
    if (is_local(seen.back())) {
      healed.push_back(std::move(seen.back()));
    } else {
      last = std::move(seen.back());
    }
    seen.pop_back();
  }
  const MutexLock lock(mutex_);
  std::erase_if(failures_, [&](const ReadFailure& one) {
    for (const ReadFailure& gone : healed) {
      if (SameRange(one, gone) && one.at == gone.at) return true;
    }
    return false;
  });
  return last;
}

}  // namespace davit::rafs
