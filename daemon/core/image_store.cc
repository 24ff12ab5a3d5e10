#include "daemon/core/image_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdio>
#include <vector>

#include "common/base/fd.h"
#include "common/base/log.h"

namespace davit::daemon {
namespace {

constexpr std::string_view kManifestFile = "/manifest.json";
constexpr std::uint64_t kMaxManifest = 4ULL << 20;

// One mount's share of an image.
class ImageUse final : public Image {
 public:
  ImageUse(std::shared_ptr<BlobSources> sources, std::shared_ptr<SharedImage> shared,
           std::string platform, std::vector<BlobSources::Share> shares, ThreadPool& pool)
      : sources_(std::move(sources)),
        shared_(std::move(shared)),
        platform_(std::move(platform)),
        shares_(std::move(shares)),
        pool_(pool) {}

  const std::string& manifest_digest() const override { return shared_->manifest_digest(); }
  const std::string& platform() const override { return platform_; }
  std::shared_ptr<const rafs::Filesystem> filesystem() const override {
    return shared_->filesystem();
  }
  storage::BlobProgress progress() const override { return shared_->progress(); }
  std::optional<Error> ahead_error() const override { return shared_->ahead_error(); }
  Status Fill(storage::FillEnd on_end, storage::FillStart start) override {
    return shared_->Fill(
        [alive = std::weak_ptr<int>(alive_), end = std::move(on_end)](const Status& status) {
          if (const auto held = alive.lock()) end(status);
        },
        start);
  }
  Status FetchListed(const Context& ctx) override { return shared_->FetchListed(ctx); }
  Status Prefetch(const std::vector<std::string>& paths) override {
    return shared_->Prefetch(paths, pool_);
  }

 private:
  const std::shared_ptr<BlobSources> sources_;  // outlives the shares
  const std::shared_ptr<SharedImage> shared_;
  const std::string platform_;
  std::vector<BlobSources::Share> shares_;
  ThreadPool& pool_;
  const std::shared_ptr<int> alive_ = std::make_shared<int>(0);
};

// The layer that is a blob of the image; a blob that no layer names (a chunk dictionary's) is
// asked for by its digest alone.
oci::Descriptor BlobDescriptor(const oci::Manifest& manifest, const storage::BlobId& id) {
  const std::string digest = "sha256:" + id.value;
  for (const oci::Descriptor& layer : manifest.layers) {
    if (layer.digest == digest) return layer;
  }
  oci::Descriptor out;
  out.media_type = rafs::kMediaTypeBlob;
  out.digest = digest;
  return out;
}

std::int64_t ModifiedAt(const std::string& path) {
  struct stat st{};
  return ::stat(path.c_str(), &st) == 0 ? st.st_mtim.tv_sec : 0;
}

void Touch(const std::string& path) { ::utimensat(AT_FDCWD, path.c_str(), nullptr, 0); }

std::string PlatformText(const rafs::ImageRef& found, const oci::Platform& wanted) {
  return (found.platform ? *found.platform : wanted).ToString();
}

}  // namespace

ImageStore::ImageStore(const Options& options, OpenRepository open_repository,
                       storage::BlobCache& cache, storage::Scheduler& scheduler)
    : options_(options),
      open_repository_(std::move(open_repository)),
      cache_(cache),
      scheduler_(scheduler),
      sources_(std::make_shared<BlobSources>(
          [&cache](const storage::BlobId& id) { cache.StopBackground(id); })),
      prefetch_pool_("prefetch", 1) {}

Result<std::unique_ptr<ImageStore>> ImageStore::Create(const Options& options,
                                                       OpenRepository open_repository,
                                                       storage::BlobCache& cache,
                                                       storage::Scheduler& scheduler) {
  DAVIT_TRY(MakeDirectories(options.directory));
  return std::unique_ptr<ImageStore>(
      new ImageStore(options, std::move(open_repository), cache, scheduler));
}

std::string ImageStore::DirectoryOf(const std::string& digest) const {
  const std::size_t colon = digest.find(':');
  return options_.directory + "/" +
         (colon == std::string::npos ? digest : digest.substr(colon + 1));
}

Result<rafs::ImageRef> ImageStore::LoadLocal(const std::string& digest) const {
  const std::string path = DirectoryOf(digest) + std::string(kManifestFile);
  DAVIT_TRY_ASSIGN(std::string content, ReadFile(path, kMaxManifest));
  rafs::ImageRef out;
  DAVIT_TRY_ASSIGN(out.parsed, oci::ParseManifest(content));
  out.manifest.descriptor = oci::DescribeContent(out.parsed.media_type, content);
  if (out.manifest.descriptor.digest != digest) {
    return Error(Code::kDataLoss, fmt::format("{} does not have the digest {}", path, digest));
  }
  out.manifest.content = std::move(content);
  out.found_by = "local";
  return out;
}

Result<rafs::ImageRef> ImageStore::Find(const Context& ctx, registry::Repository& repository,
                                        const registry::Reference& reference,
                                        const ImageRequest& request) {
  oci::Platform platform = oci::Platform::Host();
  if (!request.platform.empty()) {
    DAVIT_TRY_ASSIGN(platform, oci::Platform::Parse(request.platform));
  }
  if (!request.pinned_digest.empty()) {
    auto local = LoadLocal(request.pinned_digest);
    if (local.ok()) {
      local->platform = platform;
      return local;
    }
    if (local.error().code() != Code::kNotFound) {
      log::Warn("local metadata of an image is damaged and is fetched again",
                {{"digest", request.pinned_digest}, {"error", local.error()}});
    }
    return rafs::FindImage(ctx, repository, request.pinned_digest, platform);
  }
  return rafs::FindImage(ctx, repository, reference.TagOrDigest(), platform);
}

Result<std::shared_ptr<SharedImage>> ImageStore::FetchAndOpen(const Context& ctx,
                                                              registry::Repository& repository,
                                                              const rafs::ImageRef& found,
                                                              const std::string& source) {
  const std::string& digest = found.manifest.descriptor.digest;
  const std::string directory = DirectoryOf(digest);
  const std::string manifest_path = directory + std::string(kManifestFile);
  bool fresh = false;
  {
    const MutexLock lock(mutex_);
    fresh = fresh_.contains(digest);
  }
  const bool known = fresh || ReadFile(manifest_path, kMaxManifest).ok();
  if (!known) {
    // What a crash left there may be incomplete.
    DAVIT_TRY(RemoveTree(directory));
    DAVIT_TRY(rafs::FetchBootstrap(ctx, repository, found, directory));
  }
  Touch(directory);
  auto image = SharedImage::Open(digest, source, directory, cache_, scheduler_, *sources_);
  if (image && !known) {
    const MutexLock lock(mutex_);
    fresh_[digest] = found.manifest.content;
  }
  return image;
}

void ImageStore::Maintain() {
  MakeDurable();
  std::vector<std::shared_ptr<SharedImage>> open;
  {
    const MutexLock lock(mutex_);
    for (const auto& [digest, image] : images_) {
      if (auto alive = image.lock()) open.push_back(std::move(alive));
    }
  }
  for (const auto& image : open) image->ReleasePages();
}

// The manifest is the sign that the metadata is complete and durable. Nobody waits for that: what
// a crash loses is fetched again.
void ImageStore::MakeDurable() {
  std::map<std::string, std::string> fresh;
  {
    const MutexLock lock(mutex_);
    for (auto it = fresh_.begin(); it != fresh_.end();) {
      if (!opening_.insert(it->first).second) {  // being fetched anew
        ++it;
        continue;
      }
      fresh.insert(fresh_.extract(it++));
    }
  }
  for (const auto& [digest, manifest] : fresh) {
    const std::string directory = DirectoryOf(digest);
    Status status = rafs::SyncBootstrap(directory);
    if (status) {
      status = WriteFileAtomic(directory + std::string(kManifestFile), AsBytes(manifest));
    }
    if (!status) {
      log::Warn("an image's metadata is not durable; it is fetched again after a restart",
                {{"digest", digest}, {"error", status.error()}});
    }
    const MutexLock lock(mutex_);
    opening_.erase(digest);
    opened_.NotifyAll();
  }
}

Result<std::shared_ptr<SharedImage>> ImageStore::Share(const Context& ctx,
                                                       registry::Repository& repository,
                                                       const rafs::ImageRef& found,
                                                       const std::string& source) {
  const std::string& digest = found.manifest.descriptor.digest;
  {
    const MutexLock lock(mutex_);
    while (true) {
      const auto it = images_.find(digest);
      if (it != images_.end()) {
        if (auto open = it->second.lock()) return open;
        images_.erase(it);
      }
      if (!opening_.contains(digest)) break;
      if (!opened_.Wait(mutex_, ctx)) DAVIT_TRY(ctx.Check("open image " + digest));
    }
    opening_.insert(digest);
  }
  auto image = FetchAndOpen(ctx, repository, found, source);
  const MutexLock lock(mutex_);
  opening_.erase(digest);
  if (image) images_[digest] = *image;
  opened_.NotifyAll();
  return image;
}

Result<std::shared_ptr<Image>> ImageStore::Open(const Context& ctx, const ImageRequest& request) {
  DAVIT_TRY_ASSIGN(const registry::Reference reference, registry::Reference::Parse(request.source));
  DAVIT_TRY_ASSIGN(const std::shared_ptr<registry::Repository> repository,
                   open_repository_(reference, request.plain_http, request.credentials));
  DAVIT_TRY_ASSIGN(const rafs::ImageRef found, Find(ctx, *repository, reference, request));
  DAVIT_TRY_ASSIGN(std::shared_ptr<SharedImage> shared,
                   Share(ctx, *repository, found, request.source));
  std::vector<BlobSources::Share> shares;
  for (const rafs::BlobRecord& blob : shared->metadata().blobs()) {
    shares.push_back(
        sources_->Add(blob.id, repository->OpenBlob(BlobDescriptor(found.parsed, blob.id))));
  }
  return std::make_shared<ImageUse>(sources_, std::move(shared),
                                    PlatformText(found, oci::Platform::Host()), std::move(shares),
                                    prefetch_pool_);
}

void ImageStore::Prune(const std::set<std::string>& needed) {
  const auto names = ListDirectory(options_.directory);
  if (!names) return;
  std::set<std::string> kept;
  for (const std::string& digest : needed) kept.insert(DirectoryOf(digest));
  std::vector<std::pair<std::int64_t, std::string>> unused;
  for (const std::string& name : *names) {
    const std::string path = options_.directory + "/" + name;
    if (!kept.contains(path)) unused.emplace_back(ModifiedAt(path), path);
  }
  if (unused.size() <= options_.keep_unused) return;
  std::ranges::sort(unused);
  unused.resize(unused.size() - options_.keep_unused);
  for (const auto& [when, path] : unused) {
    const std::string doomed = path + ".old";
    {
      // Under the lock nobody begins to open it; after the renaming it is simply not there.
      const MutexLock lock(mutex_);
      if (InUse(path)) continue;
      std::erase_if(fresh_, [&](const auto& entry) { return DirectoryOf(entry.first) == path; });
      if (!path.ends_with(".old") && ::rename(path.c_str(), doomed.c_str()) != 0) continue;
    }
    const Status removed = RemoveTree(path.ends_with(".old") ? path : doomed);
    if (!removed) log::Warn("cannot remove old metadata", {{"error", removed.error()}});
  }
}

bool ImageStore::InUse(const std::string& path) const {
  for (const auto& [digest, image] : images_) {
    if (!image.expired() && DirectoryOf(digest) == path) return true;
  }
  return std::ranges::any_of(opening_, [&](const auto& d) { return DirectoryOf(d) == path; });
}

}  // namespace davit::daemon
