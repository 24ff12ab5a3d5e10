// Referrers: the API, and the fall-back tag where there is none.

#include <fmt/format.h>

#include <algorithm>

#include "common/base/log.h"
#include "common/digest/digest.h"
#include "storage/registry/manifest_document.h"
#include "storage/registry/remote_repository.h"

namespace davit::registry {
namespace {

constexpr int kEdits = 5;
constexpr int kMaxPages = 100;

bool Contains(const std::vector<oci::Descriptor>& all, const std::string& digest) {
  return std::any_of(all.begin(), all.end(), [&](const auto& one) { return one.digest == digest; });
}

std::vector<oci::Descriptor> OfType(std::vector<oci::Descriptor> all, const std::string& type) {
  if (!type.empty()) std::erase_if(all, [&](const auto& one) { return one.artifact_type != type; });
  return all;
}

}  // namespace

std::string FallbackTag(const std::string& digest) {
  std::string out = digest;
  std::replace(out.begin(), out.end(), ':', '-');
  return out;
}

Status DescribeReferrer(std::string_view media_type, const std::string& content,
                        oci::Descriptor& referrer, std::optional<oci::Descriptor>& subject) {
  if (oci::IsManifestType(media_type)) {
    DAVIT_TRY_ASSIGN(oci::Manifest manifest, oci::ParseManifest(content));
    subject = std::move(manifest.subject);
    referrer.artifact_type =
        manifest.artifact_type.empty() ? manifest.config.media_type : manifest.artifact_type;
    referrer.annotations = std::move(manifest.annotations);
  } else if (oci::IsIndexType(media_type)) {
    DAVIT_TRY_ASSIGN(oci::Index index, oci::ParseIndex(content));
    subject = std::move(index.subject);
    referrer.artifact_type = index.artifact_type;
    referrer.annotations = std::move(index.annotations);
  } else {
    return Error(Code::kInvalidArgument,
                 fmt::format("'{}' is not the media type of a manifest or index", media_type));
  }
  return {};
}

Result<std::optional<std::vector<oci::Descriptor>>> RemoteRepository::ReferrersByApi(
    const Context& ctx, const std::string& digest, const std::string& artifact_type) {
  const Endpoint origin = session_->origin();
  std::string rest = "referrers/" + digest;
  if (!artifact_type.empty()) rest += "?artifactType=" + http::UrlEncode(artifact_type);
  Call call;
  call.what = "list the referrers of " + digest;
  call.url = session_->Url(origin, rest);
  call.scope = RepositoryScope(session_->repository(), "pull");
  call.headers.Add("Accept", std::string(oci::kIndex));
  std::vector<oci::Descriptor> out;
  for (int page = 0; page < kMaxPages; ++page) {
    DAVIT_TRY_ASSIGN(const Reply reply, session_->Retry(ctx, [&]() -> Result<Reply> {
      DAVIT_TRY_ASSIGN(Reply got, session_->Send(ctx, origin, call));
      if (IsTransientStatus(got.response.status)) return session_->Unexpected(got, origin, call);
      return got;
    }));
    const int status = reply.response.status;
    // "No such API" comes in several dresses.
    if (status == 404 || status == 405 || status == 400 || status == 501)
      return std::optional<std::vector<oci::Descriptor>>();
    if (status != 200) return session_->Unexpected(reply, origin, call);
    Result<oci::Index> index = oci::ParseIndex(reply.response.body);
    // A page of a web front end with status 200 is no API either.
    if (!index.ok() && page == 0) return std::optional<std::vector<oci::Descriptor>>();
    if (!index.ok()) return std::move(index).error().WithContext(Describe() + ": " + call.what);
    out.insert(out.end(), index->manifests.begin(), index->manifests.end());
    DAVIT_TRY_ASSIGN(const std::optional<std::string> next, NextPage(*session_, call, reply));
    if (!next) return std::optional(std::move(out));
    call.url = *next;
  }
  return Error(Code::kUnavailable, Describe() + ": the pages of referrers do not end");
}

Result<std::vector<oci::Descriptor>> RemoteRepository::ReferrersByTag(const Context& ctx,
                                                                      const std::string& digest) {
  Result<Document> document = GetManifestFromOrigin(ctx, FallbackTag(digest));
  if (!document.ok() && document.error().code() == Code::kNotFound)
    return std::vector<oci::Descriptor>();
  if (!document.ok()) return std::move(document).error();
  DAVIT_TRY_ASSIGN(oci::Index index, oci::ParseIndex(document->content));
  return std::move(index.manifests);
}

Result<std::vector<oci::Descriptor>> RemoteRepository::Referrers(const Context& ctx,
                                                                 const std::string& digest,
                                                                 const std::string& artifact_type) {
  DAVIT_TRY(OciDigest::Parse(digest));
  DAVIT_TRY_ASSIGN(std::optional<std::vector<oci::Descriptor>> all,
                   ReferrersByApi(ctx, digest, artifact_type));
  if (!all) {
    DAVIT_TRY_ASSIGN(all, ReferrersByTag(ctx, digest));
  }
  // Filtering is optional for registries (OCI-Filters-Applied), so it is done here in any case.
  return OfType(*std::move(all), artifact_type);
}

Status RemoteRepository::EditFallbackTag(const Context& ctx, const std::string& subject,
                                         const oci::Descriptor& referrer, bool add) {
  DAVIT_TRY(OciDigest::Parse(subject));
  // Other processes cannot be locked out: the tag is read again, and edited again, until the
  // change has survived.
  MutexLock lock(session_->shared().referrers_mutex);
  for (int edit = 0; edit < kEdits; ++edit) {
    DAVIT_TRY_ASSIGN(std::vector<oci::Descriptor> all, ReferrersByTag(ctx, subject));
    if (Contains(all, referrer.digest) == add) return {};
    if (add) {
      all.push_back(referrer);
    } else {
      std::erase_if(all, [&](const auto& one) { return one.digest == referrer.digest; });
    }
    oci::Index index;
    index.media_type = std::string(oci::kIndex);
    index.manifests = std::move(all);
    DAVIT_TRY(PutManifest(ctx, FallbackTag(subject), oci::kIndex, oci::ToJson(index)));
    DAVIT_TRY_ASSIGN(const std::vector<oci::Descriptor> now, ReferrersByTag(ctx, subject));
    if (Contains(now, referrer.digest) == add) return {};
    const Error raced(Code::kAborted,
                      fmt::format("{}: another client keeps changing the list of referrers of {}",
                                  Describe(), subject));
    if (edit + 1 == kEdits || !session_->PauseBeforeRetry(ctx, edit, raced)) return raced;
  }
  return {};
}

Result<std::optional<RemoteRepository::Listed>> RemoteRepository::FindInFallbackTag(
    const Context& ctx, const std::string& digest) {
  using None = std::optional<Listed>;
  Result<Document> document = GetManifestFromOrigin(ctx, digest);
  if (!document.ok() && IsTransient(document.error())) return std::move(document).error();
  // Whatever else is wrong with it: it can be deleted without.
  if (!document.ok()) return None();
  std::optional<oci::Descriptor> subject;
  Listed out{.subject = {}, .referrer = document->descriptor};
  const std::string media_type = out.referrer.media_type;
  if (!DescribeReferrer(media_type, document->content, out.referrer, subject).ok() || !subject)
    return None();
  DAVIT_TRY_ASSIGN(const auto by_api, ReferrersByApi(ctx, subject->digest, ""));
  if (by_api) return None();
  out.subject = subject->digest;
  return std::optional(std::move(out));
}

Status RemoteRepository::DeleteManifest(const Context& ctx, const std::string& tag_or_digest) {
  DAVIT_TRY(CheckName(tag_or_digest));
  const bool by_digest = tag_or_digest.find(':') != std::string::npos;
  if (!by_digest) return SendDelete(ctx, tag_or_digest, false);
  // Its subject cannot be read any more once it is gone, and a list that does not name it any more
  // would be wrong if the registry refused: so look first, delete, and then change the list.
  DAVIT_TRY_ASSIGN(const std::optional<Listed> listed, FindInFallbackTag(ctx, tag_or_digest));
  DAVIT_TRY(SendDelete(ctx, tag_or_digest, listed.has_value()));
  if (!listed) return {};
  Status edited = EditFallbackTag(ctx, listed->subject, listed->referrer, false);
  if (edited.ok()) return {};
  return std::move(edited)
      .error()
      .WithContext(fmt::format("{}: {} is deleted, but the referrers of {} still list it",
                               Describe(), tag_or_digest, listed->subject))
      .WithHint(fmt::format("readers skip the entry; who may push the tag {} can take it out",
                            FallbackTag(listed->subject)));
}

}  // namespace davit::registry
