#pragma once
// What the fake registry holds. Thread-safe.

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "common/base/sync.h"
#include "tests/support/fake_registry/connection.h"

namespace davit::testing {

struct StoredManifest {
  std::string media_type, content, digest;
};

std::string Sha256(const std::string& content);  // "sha256:…"

class Store {
 public:
  std::string PutBlob(const std::string& repository, std::string content);
  void PutBlobFile(const std::string& digest, const std::string& path);
  /// The blob as a body, if the repository has it ("" asks all).
  std::optional<WireBody> GetBlob(const std::string& repository, const std::string& digest) const;
  bool LinkBlob(const std::string& repository, const std::string& digest);
  bool EraseBlob(const std::string& repository, const std::string& digest);

  std::string PutManifest(const std::string& repository, const std::string& reference,
                          const std::string& media_type, const std::string& content);
  std::optional<StoredManifest> GetManifest(const std::string& repository,
                                            const std::string& reference) const;
  /// By digest: with all its tags.
  bool EraseManifest(const std::string& repository, const std::string& reference);
  std::vector<std::string> Tags(const std::string& repository) const;
  std::vector<StoredManifest> Manifests(const std::string& repository) const;

 private:
  struct Repository {
    std::map<std::string, std::string> blobs;
    std::map<std::string, StoredManifest> manifests;  // by digest
    std::map<std::string, std::string> tags;
  };
  mutable Mutex mutex_;
  std::map<std::string, Repository> repositories_ DAVIT_GUARDED_BY(mutex_);
  std::map<std::string, std::string> files_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::testing
