#pragma once
// Images of the node: from a reference to an open tree, with the metadata kept on disk.

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>

#include "common/base/clock.h"
#include "common/base/sync.h"
#include "common/base/thread_pool.h"
#include "daemon/core/blob_sources.h"
#include "daemon/core/image.h"
#include "daemon/core/shared_image.h"
#include "rafs/image/image.h"
#include "storage/registry/client.h"

namespace davit::daemon {

/// <directory>/<hex of the manifest's digest>/{manifest.json,image.boot,*.blob.meta}; manifest.json
/// is written last, so a directory with it is whole.
class ImageStore final : public ImageProvider {
 public:
  struct Options {
    std::string directory;
    std::size_t keep_unused = 64;
  };
  /// Opens repositories; `plain_http` as the request says.
  using OpenRepository = std::function<Result<std::shared_ptr<registry::Repository>>(
      const registry::Reference&, bool plain_http,
      std::shared_ptr<registry::CredentialProvider> credentials)>;

  /// `cache` must outlive it and everything that it opened.
  static Result<std::unique_ptr<ImageStore>> Create(const Options& options,
                                                    OpenRepository open_repository,
                                                    storage::BlobCache& cache,
                                                    storage::Scheduler& scheduler);
  Result<std::shared_ptr<Image>> Open(const Context& ctx, const ImageRequest& request) override;
  void Prune(const std::set<std::string>& needed) override;
  void Maintain() override;

 private:
  ImageStore(const Options& options, OpenRepository open_repository, storage::BlobCache& cache,
             storage::Scheduler& scheduler);
  std::string DirectoryOf(const std::string& digest) const;
  Result<rafs::ImageRef> Find(const Context& ctx, registry::Repository& repository,
                              const registry::Reference& reference, const ImageRequest& request);
  Result<rafs::ImageRef> LoadLocal(const std::string& digest) const;
  Result<std::shared_ptr<SharedImage>> Share(const Context& ctx, registry::Repository& repository,
                                             const rafs::ImageRef& found,
                                             const std::string& source);
  Result<std::shared_ptr<SharedImage>> FetchAndOpen(const Context& ctx,
                                                    registry::Repository& repository,
                                                    const rafs::ImageRef& found,
                                                    const std::string& source);
  void MakeDurable();
  bool InUse(const std::string& path) const DAVIT_REQUIRES(mutex_);

  const Options options_;
  const OpenRepository open_repository_;
  storage::BlobCache& cache_;
  storage::Scheduler& scheduler_;
  const std::shared_ptr<BlobSources> sources_;
  ThreadPool prefetch_pool_;
  Mutex mutex_;
  CondVar opened_;
  std::map<std::string, std::weak_ptr<SharedImage>> images_ DAVIT_GUARDED_BY(mutex_);
  std::set<std::string> opening_ DAVIT_GUARDED_BY(mutex_);             // digests
  std::map<std::string, std::string> fresh_ DAVIT_GUARDED_BY(mutex_);  // digest to manifest
};

}  // namespace davit::daemon
