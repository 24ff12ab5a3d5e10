#include "daemon/core/shared_image.h"

#include <fmt/format.h>

#include <map>

#include "common/base/log.h"
#include "rafs/image/image.h"
#include "storage/sched/scheduled_source.h"

namespace davit::daemon {

Result<std::shared_ptr<SharedImage>> SharedImage::Open(
    std::string manifest_digest, const std::string& source, const std::string& directory,
    storage::BlobCache& cache, storage::Scheduler& scheduler, BlobSources& sources) {
  // Twice: the file system owns one; the other lives as long as the cache may ask for a blob's
  // map, which is longer when another image shares the blob. Both map the same file.
  DAVIT_TRY_ASSIGN(std::unique_ptr<rafs::Metadata> tree, rafs::OpenBootstrap(directory));
  DAVIT_TRY_ASSIGN(std::unique_ptr<rafs::Metadata> for_maps, rafs::OpenBootstrap(directory));
  const std::shared_ptr<const rafs::Metadata> maps = std::move(for_maps);
  std::shared_ptr<SharedImage> image(new SharedImage(std::move(manifest_digest), cache, sources));
  auto opener = [maps, directory, source, &cache, &scheduler,
                 &sources](std::uint32_t position) -> Result<std::shared_ptr<storage::CachedBlob>> {
    const rafs::BlobRecord& record = maps->blobs()[position];
    storage::BlobSpec spec;
    spec.id = record.id;
    spec.source = sources.Get(record.id);
    // Through the scheduler: a registry that is away for a moment must not fail the first read.
    spec.load_map =
        rafs::MapLoader(maps, position, storage::WithScheduler(spec.source, scheduler), directory);
    spec.image = source;
    spec.uncompressed_size = record.ci.uncompressed_size;
    return cache.OpenBlob(spec);
  };
  image->maps_ = maps;
  image->fs_ = std::make_shared<rafs::Filesystem>(std::move(tree), std::move(opener));
  return image;
}

void SharedImage::ReleasePages() const {
  metadata().ReleasePages();
  maps_->ReleasePages();
}

storage::BlobProgress SharedImage::progress() const {
  storage::BlobProgress sum{.bytes_ready = 0, .bytes_total = 0, .complete = true};
  for (const rafs::BlobRecord& blob : metadata().blobs()) {
    const storage::BlobProgress one = cache_.Progress(blob.id);
    sum.bytes_ready += one.bytes_ready;
    sum.bytes_total += one.bytes_total != 0 ? one.bytes_total : blob.ci.uncompressed_size;
    sum.complete = sum.complete && one.complete;
  }
  return sum;
}

std::optional<Error> SharedImage::ahead_error() const {
  if (!ahead_.load()) return std::nullopt;
  // Also of one that is complete: this image's own table of it may still be missing.
  for (const bool complete : {false, true}) {
    for (const rafs::BlobRecord& blob : metadata().blobs()) {
      if (cache_.Progress(blob.id).complete != complete) continue;
      // The cache hears of a registry that is away only when the scheduler's patience has ended.
      auto error = sources_.BackgroundFailure(blob.id);
      if (!error) error = cache_.BackgroundError(blob.id);
      if (error) return error;
    }
  }
  return std::nullopt;
}

void SharedImage::OnBlobEnd(FillState& state, const Status& status) {
  storage::FillEnd on_end;
  {
    const MutexLock lock(state.mutex);
    if (status && --state.missing > 0) return;
    on_end = std::exchange(state.on_end, nullptr);
  }
  if (on_end) on_end(status);
}

Status SharedImage::Fill(storage::FillEnd on_end, storage::FillStart start) {
  ahead_ = true;
  const auto count = static_cast<std::uint32_t>(metadata().blobs().size());
  std::vector<std::shared_ptr<storage::CachedBlob>> blobs;
  for (std::uint32_t i = 0; i < count; ++i) {
    DAVIT_TRY_ASSIGN(std::shared_ptr<storage::CachedBlob> blob, fs_->Blob(i));
    blobs.push_back(std::move(blob));
  }
  if (blobs.empty()) {
    if (on_end) on_end({});
    return {};
  }
  if (!listed_started_.exchange(true)) {  // goes first
    auto listed = ListedRanges();
    const Status started = listed ? StartPrefetch(*fs_, cache_, *listed) : listed.error();
    if (!started) {
      log::Warn("the image's prefetch list cannot be used",
                {{"digest", manifest_digest_}, {"error", started.error()}});
    }
  }
  const auto state = std::make_shared<FillState>();
  {
    const MutexLock lock(state->mutex);
    state->missing = blobs.size();
    state->on_end = std::move(on_end);
  }
  for (const auto& blob : blobs) {
    cache_.Fill(blob, [state](const Status& status) { OnBlobEnd(*state, status); }, start);
  }
  return {};
}

Result<SharedImage::Ranges> SharedImage::ListedRanges() const {
  Ranges out;
  for (const rafs::InodeId inode : metadata().PrefetchList()) {
    DAVIT_TRY_ASSIGN(const Ranges part, fs_->Ranges(inode));
    out.insert(out.end(), part.begin(), part.end());
  }
  return out;
}

Status SharedImage::StartPrefetch(const rafs::Filesystem& fs, storage::BlobCache& cache,
                                  const Ranges& ranges) {
  std::map<std::uint32_t, std::vector<ByteRange>> by_blob;
  for (const auto& [blob, range] : ranges) by_blob[blob].push_back(range);
  for (auto& [position, list] : by_blob) {
    DAVIT_TRY_ASSIGN(const std::shared_ptr<storage::CachedBlob> blob, fs.Blob(position));
    cache.Prefetch(blob, std::move(list), Cause::kPrefetch);
  }
  return {};
}

Status SharedImage::FetchListed(const Context& ctx) {
  Context background = ctx;
  background.cause = Cause::kPrefetch;
  ahead_ = true;
  DAVIT_TRY_ASSIGN(const Ranges ranges, ListedRanges());
  DAVIT_TRY(StartPrefetch(*fs_, cache_, ranges));  // several at a time; then wait for each
  for (const auto& [position, range] : ranges) {
    DAVIT_TRY_ASSIGN(const std::shared_ptr<storage::CachedBlob> blob, fs_->Blob(position));
    DAVIT_TRY(blob->Ensure(background, range));
  }
  return {};
}

Status SharedImage::Prefetch(const std::vector<std::string>& paths, ThreadPool& pool) {
  ahead_ = true;
  std::vector<rafs::InodeId> inodes;
  for (const std::string& path : paths) {
    DAVIT_TRY_ASSIGN(const rafs::InodeId inode, rafs::LookupPath(metadata(), path));
    inodes.push_back(inode);
  }
  if (paths.empty()) inodes.push_back(metadata().root());
  return pool.Submit([fs = fs_, &cache = cache_, inodes, digest = manifest_digest_] {
    for (const rafs::InodeId inode : inodes) {
      auto ranges = fs->Ranges(inode);
      Status status = ranges.ok() ? StartPrefetch(*fs, cache, *ranges) : ranges.error();
      if (!status) {
        log::Warn("cannot prefetch", {{"digest", digest}, {"error", status.error()}});
      }
    }
  });
}

}  // namespace davit::daemon
