#pragma once
// An image in use by one mount, and where it comes from. Interfaces, so that the mount service is
// tested without registries.

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "common/base/context.h"
#include "rafs/fs/filesystem.h"
#include "storage/cache/blob_cache.h"
#include "storage/registry/credentials.h"

namespace davit::daemon {

struct ImageRequest {
  std::string source;
  std::string platform;  // empty: the host's
  bool plain_http = false;
  /// Not empty: this manifest of the source's repository, whatever the tag says now; without any
  /// request when its metadata is local.
  std::string pinned_digest;
  std::shared_ptr<registry::CredentialProvider> credentials;  // null: the configured ones
};

/// What one mount holds of an image; mounts of the same manifest share tree and content. Releases
/// its share on destruction. Thread-safe.
class Image {
 public:
  virtual ~Image() = default;
  virtual const std::string& manifest_digest() const = 0;
  virtual const std::string& platform() const = 0;
  /// Null only in tests.
  virtual std::shared_ptr<const rafs::Filesystem> filesystem() const = 0;
  /// Over all blobs; does not wait.
  virtual storage::BlobProgress progress() const = 0;
  /// Why what was asked for ahead of readers (Fill, FetchListed, Prefetch) does not come: the last
  /// error since anything came, also while it is still tried.
  virtual std::optional<Error> ahead_error() const = 0;
  /// Fetches everything in the background. `on_end` runs once on some thread, unless this object
  /// is gone before: OK when all is local; whoever wants it at once is also told when there is no
  /// room for it (kResourceExhausted), and the fetching goes on when there is.
  virtual Status Fill(storage::FillEnd on_end, storage::FillStart start) = 0;
  /// Fetches what the image's author listed; returns when it is local.
  virtual Status FetchListed(const Context& ctx) = 0;
  /// Starts to fetch files and directories in the background; kNotFound names a wrong path.
  virtual Status Prefetch(const std::vector<std::string>& paths) = 0;
};

/// Thread-safe.
class ImageProvider {
 public:
  virtual ~ImageProvider() = default;
  /// Resolves, fetches metadata and opens. Whoever has no access to the image in its registry gets
  /// the registry's error, also when the image is local.
  virtual Result<std::shared_ptr<Image>> Open(const Context& ctx, const ImageRequest& request) = 0;
  /// Deletes metadata of images that nobody uses, the longest unused first, but those in `needed`
  /// (manifest digests).
  virtual void Prune(const std::set<std::string>& needed) = 0;
  /// Makes what images brought with them survive a crash of the machine, and gives memory back
  /// that only their opening needed. To be called now and then.
  virtual void Maintain() = 0;
};

}  // namespace davit::daemon
