#pragma once
// A repository of a registry, by the OCI distribution API.

#include <memory>

#include "storage/registry/client.h"
#include "storage/registry/session.h"

namespace davit::registry {

class RemoteRepository final : public Repository {
 public:
  explicit RemoteRepository(std::shared_ptr<Session> session) : session_(std::move(session)) {}

  std::string Describe() const override { return session_->name(); }
  Result<oci::Descriptor> Resolve(const Context& ctx, const std::string& tag_or_digest) override;
  Result<Document> GetManifest(const Context& ctx, const std::string& tag_or_digest) override;
  Result<std::string> GetBlob(const Context& ctx, const oci::Descriptor& blob,
                              std::uint64_t limit) override;
  Status ReadBlob(const Context& ctx, const oci::Descriptor& blob,
                  const storage::ByteSink& sink) override;
  std::shared_ptr<storage::BlobSource> OpenBlob(const oci::Descriptor& blob) override;
  Result<bool> HasBlob(const Context& ctx, const oci::Descriptor& blob) override;
  Result<bool> PushBlob(const Context& ctx, const BlobContent& content) override;
  Result<bool> MountBlob(const Context& ctx, const oci::Descriptor& blob,
                         const std::string& from_repository) override;
  Result<oci::Descriptor> PushManifest(const Context& ctx, const std::string& tag_or_digest,
                                       std::string_view media_type,
                                       const std::string& content) override;
  Result<std::vector<std::string>> ListTags(const Context& ctx) override;
  Result<std::vector<oci::Descriptor>> Referrers(const Context& ctx, const std::string& digest,
                                                 const std::string& artifact_type) override;
  Status DeleteManifest(const Context& ctx, const std::string& tag_or_digest) override;

 private:
  // remote_repository.cc
  Result<oci::Descriptor> ResolveAt(const Context& ctx, const Endpoint& endpoint,
                                    const std::string& name);
  Result<Document> GetManifestAt(const Context& ctx, const Endpoint& endpoint,
                                 const std::string& name);
  Result<Document> GetManifestFromOrigin(const Context& ctx, const std::string& name);
  // remote_referrers.cc
  Result<std::optional<std::vector<oci::Descriptor>>> ReferrersByApi(
      const Context& ctx, const std::string& digest, const std::string& artifact_type);
  Result<std::vector<oci::Descriptor>> ReferrersByTag(const Context& ctx,
                                                      const std::string& digest);
  Status EditFallbackTag(const Context& ctx, const std::string& subject,
                         const oci::Descriptor& referrer, bool add);
  /// An entry of a fall-back tag, and whose tag it is.
  struct Listed {
    std::string subject;
    oci::Descriptor referrer;
  };
  /// Where the manifest is listed as a referrer by tag; nothing when it is not, or when the
  /// registry keeps such lists itself.
  Result<std::optional<Listed>> FindInFallbackTag(const Context& ctx, const std::string& digest);
  Status SendDelete(const Context& ctx, const std::string& tag_or_digest, bool was_there);
  Result<http::Headers> PutManifest(const Context& ctx, const std::string& name,
                                    std::string_view media_type, const std::string& content);

  const std::shared_ptr<Session> session_;
};

/// The tag under which referrers are listed where the registry has no API for it.
std::string FallbackTag(const std::string& digest);
/// The URL of the next page by the reply's Link header, or nothing. Only the registry's own host
/// is followed.
Result<std::optional<std::string>> NextPage(const Session& session, const Call& call,
                                            const Reply& reply);
/// Fills what a list of referrers says of a manifest, and finds its subject.
Status DescribeReferrer(std::string_view media_type, const std::string& content,
                        oci::Descriptor& referrer, std::optional<oci::Descriptor>& subject);
/// The digest must be sha256 or the text a tag: it becomes part of a URL.
Status CheckName(const std::string& tag_or_digest);

}  // namespace davit::registry
