#pragma once
// The cache directory: who owns it, which version it has, which blobs lie in it.

#include <string>
#include <vector>

#include "common/base/fd.h"
#include "storage/blob/blob.h"

namespace davit::storage {

/// Holds the lock for as long as it lives.
class CacheDir {
 public:
  /// kFailedPrecondition naming the owner's pid while another process has the directory, and when
  /// a newer version of davit made it.
  static Result<CacheDir> Take(const std::string& path);
  const std::string& path() const { return path_; }
  std::string BlobPath(const BlobId& id) const { return path_ + "/blobs/" + id.value; }
  /// Names that are not blob ids are moved to "lost/": nothing unknown is trusted or deleted.
  Result<std::vector<BlobId>> ListBlobs() const;

 private:
  CacheDir(std::string path, UniqueFd lock) : path_(std::move(path)), lock_(std::move(lock)) {}
  std::string path_;
  UniqueFd lock_;
};

}  // namespace davit::storage
