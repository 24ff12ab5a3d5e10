#include "rafs/fuse/read_failures.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace davit::rafs {
namespace {

bool SameRange(const ReadFailure& a, const ReadFailure& b) {
  return a.inode == b.inode && a.offset == b.offset && a.size == b.size;
}

}  // namespace

Blobs BlobsToFetchFrom(std::span<const Piece> pieces) {
  Blobs out;
  for (const Piece& piece : pieces) {
    if (!Filesystem::IsLocal(std::span(&piece, 1))) out.push_back(piece.blob);
  }
  return out;
}

bool LieInAny(const Blobs& blobs, std::span<const Piece> pieces) {
  return std::ranges::any_of(pieces, [&](const Piece& piece) {
    return std::ranges::find(blobs, piece.blob) != blobs.end();
  });
}

void ReadFailures::Add(ReadFailure failure) {
  const MutexLock lock(mutex_);
  std::erase_if(failures_, [&](const ReadFailure& old) { return SameRange(old, failure); });
  if (failures_.size() >= kMost) failures_.pop_front();
  failures_.push_back(std::move(failure));
  any_.store(true, std::memory_order_relaxed);
}

std::vector<ReadFailure> ReadFailures::Snapshot() const {
  const MutexLock lock(mutex_);
  return {failures_.begin(), failures_.end()};
}

void ReadFailures::Forget(const std::vector<ReadFailure>& healed) const {
  const MutexLock lock(mutex_);
  std::erase_if(failures_, [&](const ReadFailure& one) {
    for (const ReadFailure& gone : healed) {
      if (SameRange(one, gone) && one.at == gone.at) return true;
    }
    return false;
  });
  any_.store(!failures_.empty(), std::memory_order_relaxed);
}

// Failures are looked at without the lock, here and below: a read that fails meanwhile must not
// wait for this.
void ReadFailures::OnFetched(const InSamePlace& in_same_place) {
  if (!any()) return;
  std::vector<ReadFailure> healed = Snapshot();
  std::erase_if(healed, [&](const ReadFailure& old) {
    return old.error.code() == Code::kDataLoss || !in_same_place(old);
  });
  if (!healed.empty()) Forget(healed);
}

std::optional<ReadFailure> ReadFailures::Last(const IsLocal& is_local) const {
  if (!any()) return std::nullopt;
  std::vector<ReadFailure> seen = Snapshot();
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
  Forget(healed);
  return last;
}

}  // namespace davit::rafs
