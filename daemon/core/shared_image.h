#pragma once
// Tree and content of one manifest, shared by all its mounts.

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/sync.h"
#include "common/base/thread_pool.h"
#include "daemon/core/blob_sources.h"
#include "rafs/fs/filesystem.h"
#include "storage/cache/blob_cache.h"

namespace davit::daemon {

/// Thread-safe. What threads of the cache and of FUSE sessions need is in objects that they share,
/// so that they may be late.
class SharedImage {
 public:
  /// `cache`, `scheduler` and `sources` must outlive it and everything that holds its file system.
  /// `source` names it in log lines: what the first who opened it called it.
  static Result<std::shared_ptr<SharedImage>> Open(
      std::string manifest_digest, const std::string& source, const std::string& directory,
      storage::BlobCache& cache, storage::Scheduler& scheduler, BlobSources& sources);
  SharedImage(const SharedImage&) = delete;
  SharedImage& operator=(const SharedImage&) = delete;

  const std::string& manifest_digest() const { return manifest_digest_; }
  const rafs::Metadata& metadata() const { return fs_->metadata(); }
  std::shared_ptr<const rafs::Filesystem> filesystem() const { return fs_; }
  storage::BlobProgress progress() const;
  /// See Image.
  std::optional<Error> ahead_error() const;

  /// Starts the background fill at the first call, and hastens it at a later one that wants it at
  /// once. `on_end` runs once: OK when all is local, else the first error of a blob.
  Status Fill(storage::FillEnd on_end, storage::FillStart start);
  Status FetchListed(const Context& ctx);
  /// What reading the metadata has touched stops counting as memory until it is wanted again.
  void ReleasePages() const;
  /// Resolves the paths, the rest happens on `pool`.
  Status Prefetch(const std::vector<std::string>& paths, ThreadPool& pool);

 private:
  using Ranges = std::vector<std::pair<std::uint32_t, ByteRange>>;
  /// One call of Fill().
  struct FillState {
    Mutex mutex;
    std::size_t missing DAVIT_GUARDED_BY(mutex) = 0;
    storage::FillEnd on_end DAVIT_GUARDED_BY(mutex);  // null: told
  };

  SharedImage(std::string manifest_digest, storage::BlobCache& cache, BlobSources& sources)
      : manifest_digest_(std::move(manifest_digest)), cache_(cache), sources_(sources) {}
  static void OnBlobEnd(FillState& state, const Status& status);
  Result<Ranges> ListedRanges() const;
  static Status StartPrefetch(const rafs::Filesystem& fs, storage::BlobCache& cache,
                              const Ranges& ranges);

  const std::string manifest_digest_;
  storage::BlobCache& cache_;
  const BlobSources& sources_;
  std::shared_ptr<const rafs::Metadata> maps_;  // for the blobs' maps
  std::atomic<bool> ahead_{false};              // anything was asked for ahead of readers
  std::atomic<bool> listed_started_{false};     // what the image's author listed is on its way
  std::shared_ptr<const rafs::Filesystem> fs_;
};

}  // namespace davit::daemon
