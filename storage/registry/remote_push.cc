// Pushing blobs and manifests.

#include <fmt/format.h>

#include "common/digest/digest.h"
#include "storage/registry/manifest_document.h"
#include "storage/registry/remote_repository.h"
#include "storage/registry/upload.h"

namespace davit::registry {

Result<bool> RemoteRepository::PushBlob(const Context& ctx, const BlobContent& content) {
  DAVIT_TRY(OciDigest::Parse(content.descriptor.digest));
  Call call;
  call.what = "look for the blob " + content.descriptor.digest;
  call.method = "HEAD";
  call.url = session_->Url(session_->origin(), "blobs/" + content.descriptor.digest);
  call.scope = RepositoryScope(session_->repository(), "pull,push");
  call.follow_redirects = false;
  DAVIT_TRY_ASSIGN(const Reply reply, session_->Retry(ctx, [&]() -> Result<Reply> {
    DAVIT_TRY_ASSIGN(Reply got, session_->Send(ctx, session_->origin(), call));
    if (IsTransientStatus(got.response.status))
      return session_->Unexpected(got, session_->origin(), call);
    return got;
  }));
  const int status = reply.response.status;
  if (status >= 200 && status < 400) return false;
  if (status == 401 || status == 403) return session_->Unexpected(reply, session_->origin(), call);
  DAVIT_TRY(Upload(*session_, content).Run(ctx));
  return true;
}

Result<bool> RemoteRepository::MountBlob(const Context& ctx, const oci::Descriptor& blob,
                                         const std::string& from_repository) {
  DAVIT_TRY(OciDigest::Parse(blob.digest));
  Result<Reference> from = Reference::Parse("registry.invalid/" + from_repository);
  if (!from.ok() || from->repository != from_repository) {
    return Error(Code::kInvalidArgument,
                 fmt::format("'{}' is not the name of a repository", from_repository));
  }
  Call call;
  call.what = fmt::format("mount {} from {}", blob.digest, from_repository);
  call.method = "POST";
  call.url = session_->Url(session_->origin(), fmt::format("blobs/uploads/?mount={}&from={}",
                                                           http::UrlEncode(blob.digest),
                                                           http::UrlEncode(from_repository)));
  call.scope = RepositoryScope(session_->repository(), "pull,push") + " " +
               RepositoryScope(from_repository, "pull");
  DAVIT_TRY_ASSIGN(const Reply reply, session_->Retry(ctx, [&] {
    return session_->Expect(ctx, session_->origin(), call, {201, 202});
  }));
  if (reply.response.status == 201) return true;
  // 202 has opened an upload; nobody is going to use it.
  const Result<http::Url> base = http::Url::Parse(reply.url);
  if (!base.ok() || !reply.response.headers.Get("Location")) return false;
  const Result<http::Url> location =
      session_->CheckedLocation(session_->origin(), *base, reply.response.headers);
  if (!location.ok()) return false;
  Call cancel;
  cancel.what = "cancel an upload";
  cancel.method = "DELETE";
  cancel.url = location->ToString();
  cancel.scope = call.scope;
  (void)session_->Send(ctx, session_->origin(), cancel);
  return false;
}

Result<http::Headers> RemoteRepository::PutManifest(const Context& ctx, const std::string& name,
                                                    std::string_view media_type,
                                                    const std::string& content) {
  Call call;
  call.what = fmt::format("push the manifest '{}'", name);
  call.method = "PUT";
  call.url = session_->Url(session_->origin(), "manifests/" + name);
  call.scope = RepositoryScope(session_->repository(), "pull,push");
  call.headers.Add("Content-Type", std::string(media_type));
  call.body = content;
  DAVIT_TRY_ASSIGN(Reply reply, session_->Retry(ctx, [&] {
    return session_->Expect(ctx, session_->origin(), call, {200, 201, 202, 204});
  }));
  return std::move(reply.response.headers);
}

Result<oci::Descriptor> RemoteRepository::PushManifest(const Context& ctx,
                                                       const std::string& tag_or_digest,
                                                       std::string_view media_type,
                                                       const std::string& content) {
  if (content.size() > kMaxManifest) {
    return Error(Code::kInvalidArgument,
                 fmt::format("the manifest has {} bytes, registries take at most {}",
                             content.size(), kMaxManifest));
  }
  const oci::Descriptor descriptor = oci::DescribeContent(media_type, content);
  const std::string name = tag_or_digest.empty() ? descriptor.digest : tag_or_digest;
  DAVIT_TRY(CheckName(name));
  if (name.find(':') != std::string::npos && name != descriptor.digest) {
    return Error(Code::kInvalidArgument,
                 fmt::format("the manifest has the digest {}, not {}", descriptor.digest, name));
  }
  std::optional<oci::Descriptor> subject;
  oci::Descriptor referrer = descriptor;
  DAVIT_TRY(DescribeReferrer(media_type, content, referrer, subject));
  DAVIT_TRY_ASSIGN(const http::Headers headers, PutManifest(ctx, name, media_type, content));
  const auto stored = headers.Get("Docker-Content-Digest");
  if (stored && stored->starts_with("sha256:") && *stored != descriptor.digest) {
    return Error(Code::kDataLoss, fmt::format("{}: the manifest {} was stored as {}", Describe(),
                                              descriptor.digest, stored->substr(0, 80)));
  }
  // With the referrers API the registry says that it has seen the subject.
  if (subject && !headers.Get("OCI-Subject"))
    DAVIT_TRY(EditFallbackTag(ctx, subject->digest, referrer, true));
  return descriptor;
}

}  // namespace davit::registry
