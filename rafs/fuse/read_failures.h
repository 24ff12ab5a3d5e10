#pragma once
// Reads that failed and whose bytes are still missing; internal to rafs/fuse.

#include <atomic>
#include <deque>
#include <functional>
#include <optional>
#include <span>
#include <vector>

#include "common/base/sync.h"
#include "rafs/fs/filesystem.h"
#include "rafs/fuse/session.h"

namespace davit::rafs {

/// The blobs of which bytes of the pieces are not here.
using Blobs = std::vector<const storage::CachedBlob*>;
Blobs BlobsToFetchFrom(std::span<const Piece> pieces);
/// Whether any of the pieces lies in one of the blobs.
bool LieInAny(const Blobs& blobs, std::span<const Piece> pieces);

/// Thread-safe. What cannot be reached is forgotten when a later read gets bytes from the same
/// place, which is the same blob; what arrived damaged only when its own bytes have come.
class ReadFailures {
 public:
  /// Whether the range of a failure can be read now without fetching anything.
  using IsLocal = std::function<bool(const ReadFailure&)>;

  /// Whether the range of a failure lies, in part, where bytes have just come from.
  using InSamePlace = std::function<bool(const ReadFailure&)>;

  void Add(ReadFailure failure);
  /// False when nothing has failed; costs one load.
  bool any() const { return any_.load(std::memory_order_relaxed); }
  /// A read had to fetch bytes, and got them.
  void OnFetched(const InSamePlace& in_same_place);
  /// The latest one that still stands.
  std::optional<ReadFailure> Last(const IsLocal& is_local) const;

 private:
  static constexpr std::size_t kMost = 64;

  std::vector<ReadFailure> Snapshot() const;
  void Forget(const std::vector<ReadFailure>& healed) const;

  mutable std::atomic<bool> any_{false};
  mutable Mutex mutex_;
  mutable std::deque<ReadFailure> failures_ DAVIT_GUARDED_BY(mutex_);  // one a range, oldest first
};

}  // namespace davit::rafs
