#pragma once
// A repository and a blob in memory, for the tests of rafs/image.

#include <map>
#include <string>
#include <vector>

#include "rafs/image/image.h"
#include "storage/registry/client.h"

namespace davit::rafs {

template <class T>
std::string Outcome(const Result<T>& result) {
  return result ? "ok" : std::string(CodeName(result.error().code()));
}

/// Serves what was put into it; everything that writes is kUnsupported.
class FakeRepository final : public registry::Repository {
 public:
  /// Stores content; the descriptor has its digest and size.
  oci::Descriptor Put(std::string_view media_type, const std::string& content);
  /// Stores a manifest, under a tag if one is given.
  oci::Descriptor PutManifest(const oci::Manifest& manifest, const std::string& tag = {});
  oci::Descriptor PutIndex(const oci::Index& index, const std::string& tag);

  std::string Describe() const override { return "registry.example/app"; }
  Result<oci::Descriptor> Resolve(const Context& ctx, const std::string& name) override;
  Result<registry::Document> GetManifest(const Context& ctx, const std::string& name) override;
  Result<std::string> GetBlob(const Context& ctx, const oci::Descriptor& blob,
                              std::uint64_t limit) override;
  Status ReadBlob(const Context& ctx, const oci::Descriptor& blob,
                  const storage::ByteSink& sink) override;
  std::shared_ptr<storage::BlobSource> OpenBlob(const oci::Descriptor& blob) override;
  Result<bool> HasBlob(const Context& ctx, const oci::Descriptor& blob) override;
  Result<bool> PushBlob(const Context& ctx, const registry::BlobContent& content) override;
  Result<bool> MountBlob(const Context& ctx, const oci::Descriptor& blob,
                         const std::string& from_repository) override;
  Result<oci::Descriptor> PushManifest(const Context& ctx, const std::string& tag_or_digest,
                                       std::string_view media_type,
                                       const std::string& content) override;
  Result<std::vector<std::string>> ListTags(const Context& ctx) override;
  Result<std::vector<oci::Descriptor>> Referrers(const Context& ctx, const std::string& digest,
                                                 const std::string& artifact_type) override;
  Status DeleteManifest(const Context& ctx, const std::string& tag_or_digest) override;

  std::map<std::string, registry::Document> documents;  // by tag and by digest
  std::map<std::string, std::string> blobs;             // by digest
  std::map<std::string, std::vector<oci::Descriptor>> referrers;
  std::optional<Error> referrers_error;
  int reads = 0;      // of manifests
  int downloads = 0;  // of blobs
};

/// A blob in memory that counts what is asked of it.
class FakeSource final : public storage::BlobSource {
 public:
  explicit FakeSource(std::string bytes) : content(std::move(bytes)) {}
  std::string Describe() const override { return "fake blob"; }
  std::string Host() const override { return "registry.example"; }
  Result<std::uint64_t> Size(const Context&) override { return content.size(); }
  Status Read(const Context& ctx, ByteRange range, storage::SourceRead& how,
              const storage::ByteSink& sink) override;

  std::string content;
  std::vector<ByteRange> requests;
};

/// A manifest with a bootstrap layer and `blob_layers` blobs.
oci::Manifest RafsManifest(FakeRepository& repository, const std::string& bootstrap_layer,
                           const std::string& fs_version = "6");
oci::Manifest OrdinaryManifest(FakeRepository& repository);

}  // namespace davit::rafs
