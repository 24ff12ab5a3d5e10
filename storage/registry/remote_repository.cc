#include "storage/registry/remote_repository.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <utility>

#include "common/digest/digest.h"
#include "storage/registry/manifest_document.h"
#include "storage/registry/replies.h"

namespace davit::registry {
namespace {

constexpr std::string_view kAccept =
    "application/vnd.oci.image.index.v1+json, application/vnd.oci.image.manifest.v1+json, "
    "application/vnd.docker.distribution.manifest.list.v2+json, "
    "application/vnd.docker.distribution.manifest.v2+json";
constexpr int kMaxTagPages = 1000;
constexpr std::size_t kMaxTags = 1'000'000;
constexpr std::uint64_t kMaxTagPage = 8ULL << 20;

bool IsDigest(const std::string& name) { return name.find(':') != std::string::npos; }

}  // namespace

Status CheckName(const std::string& name) {
  if (IsDigest(name)) {
    DAVIT_TRY(OciDigest::Parse(name));
    return {};
  }
  const auto valid = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
           c == '.' || c == '-';
  };
  if (!name.empty() && name.size() <= 128 && std::all_of(name.begin(), name.end(), valid) &&
      name.front() != '.' && name.front() != '-')
    return {};
  return Error(Code::kInvalidArgument, fmt::format("'{}' is neither a tag nor a digest", name));
}

Result<std::optional<std::string>> NextPage(const Session& session, const Call& call,
                                            const Reply& reply) {
  const std::optional<std::string> link = NextLink(reply.response.headers);
  if (!link) return std::optional<std::string>();
  DAVIT_TRY_ASSIGN(const http::Url base, http::Url::Parse(call.url));
  const Result<http::Url> url = base.Resolve(*link);
  const auto refuse = [&](std::string_view why) {
    return Session::Astray(fmt::format("{}: {}: the next page '{}' is refused: {}", session.name(),
                                       call.what, ShownUrl(*link), why));
  };
  if (!url.ok() || url->Origin() != session.origin().Origin()) return refuse("it is elsewhere");
  if (url->ToString() == call.url) return refuse("it is the same page again");
  return std::optional(url->ToString());
}

Result<Document> RemoteRepository::GetManifestAt(const Context& ctx, const Endpoint& endpoint,
                                                 const std::string& name) {
  Call call;
  call.what = fmt::format("get the manifest '{}'", name);
  call.url = session_->Url(endpoint, "manifests/" + name);
  call.scope = RepositoryScope(session_->repository(), "pull");
  call.headers.Add("Accept", std::string(kAccept));
  call.max_response_bytes = kMaxManifest;
  DAVIT_TRY_ASSIGN(const Reply reply, session_->Expect(ctx, endpoint, call, {200}));
  const std::string where = fmt::format("{}: {} at {}", Describe(), call.what, endpoint.Origin());
  Document out;
  out.content = reply.response.body;
  const std::string header(reply.response.headers.Get("Content-Type").value_or(""));
  out.descriptor = oci::DescribeContent("", out.content);
  const auto announced = reply.response.headers.Get("Docker-Content-Digest");
  const std::string wanted =
      IsDigest(name) ? name : std::string(announced.value_or(out.descriptor.digest));
  if (wanted != out.descriptor.digest && (IsDigest(name) || wanted.starts_with("sha256:"))) {
    return Error(Code::kDataLoss,
                 fmt::format("{}: the content has the digest {}", where, out.descriptor.digest))
        .WithHint("the registry or a proxy in between has changed or damaged it");
  }
  Result<std::string> type = ManifestType(out.content, header);
  if (!type.ok()) return std::move(type).error().WithContext(where);
  out.descriptor.media_type = *std::move(type);
  return out;
}

Result<oci::Descriptor> RemoteRepository::ResolveAt(const Context& ctx, const Endpoint& endpoint,
                                                    const std::string& name) {
  Call call;
  call.what = fmt::format("resolve '{}'", name);
  call.method = "HEAD";
  call.url = session_->Url(endpoint, "manifests/" + name);
  call.scope = RepositoryScope(session_->repository(), "pull");
  call.headers.Add("Accept", std::string(kAccept));
  DAVIT_TRY_ASSIGN(const Reply reply, session_->Send(ctx, endpoint, call));
  const int status = reply.response.status;
  const bool no_head = status == 405 || status == 501;
  if (status != 200 && !no_head) return session_->Unexpected(reply, endpoint, call);
  const http::Headers& headers = reply.response.headers;
  oci::Descriptor out;
  out.digest = std::string(headers.Get("Docker-Content-Digest").value_or(""));
  const std::string_view type = headers.Get("Content-Type").value_or("");
  out.media_type = std::string(type.substr(0, type.find(';')));
  const std::string_view length = headers.Get("Content-Length").value_or("");
  std::from_chars(length.data(), length.data() + length.size(), out.size);
  const bool known = oci::IsManifestType(out.media_type) || oci::IsIndexType(out.media_type);
  if (status == 200 && out.size > 0 && known && OciDigest::Parse(out.digest).ok()) {
    if (!IsDigest(name) || out.digest == name) return out;
    return Error(Code::kDataLoss, fmt::format("{}: {} answers with the digest {}", Describe(),
                                              call.what, out.digest));
  }
  DAVIT_TRY_ASSIGN(Document document, GetManifestAt(ctx, endpoint, name));
  return std::move(document.descriptor);
}

Result<oci::Descriptor> RemoteRepository::Resolve(const Context& ctx,
                                                  const std::string& tag_or_digest) {
  DAVIT_TRY(CheckName(tag_or_digest));
  return session_->Retry(ctx, [&] {
    return session_->Pull(ctx, !IsDigest(tag_or_digest), [&](const Endpoint& endpoint) {
      return ResolveAt(ctx, endpoint, tag_or_digest);
    });
  });
}

Result<Document> RemoteRepository::GetManifest(const Context& ctx,
                                               const std::string& tag_or_digest) {
  DAVIT_TRY(CheckName(tag_or_digest));
  return session_->Retry(ctx, [&] {
    return session_->Pull(ctx, !IsDigest(tag_or_digest), [&](const Endpoint& endpoint) {
      return GetManifestAt(ctx, endpoint, tag_or_digest);
    });
  });
}

Result<Document> RemoteRepository::GetManifestFromOrigin(const Context& ctx,
                                                         const std::string& name) {
  return session_->Retry(ctx, [&] { return GetManifestAt(ctx, session_->origin(), name); });
}

Result<std::vector<std::string>> RemoteRepository::ListTags(const Context& ctx) {
  const Endpoint origin = session_->origin();
  Call call;
  call.what = "list the tags";
  call.url = session_->Url(origin, "tags/list?n=1000");
  call.scope = RepositoryScope(session_->repository(), "pull");
  call.max_response_bytes = kMaxTagPage;
  std::vector<std::string> out;
  for (int page = 0; page < kMaxTagPages; ++page) {
    DAVIT_TRY_ASSIGN(const Reply reply, session_->Retry(ctx, [&] {
      return session_->Expect(ctx, origin, call, {200});
    }));
    Result<std::vector<std::string>> tags = ParseTags(reply.response.body);
    if (!tags.ok()) return std::move(tags).error().WithContext(Describe());
    if (out.size() + tags->size() > kMaxTags) {
      return Error(Code::kResourceExhausted,
                   fmt::format("{}: there are more than {} tags", Describe(), kMaxTags));
    }
    out.insert(out.end(), std::make_move_iterator(tags->begin()),
               std::make_move_iterator(tags->end()));
    DAVIT_TRY_ASSIGN(const std::optional<std::string> next, NextPage(*session_, call, reply));
    if (!next) return out;
    call.url = *next;
  }
  return Error(Code::kUnavailable, fmt::format("{}: the pages of tags do not end", Describe()));
}

Status RemoteRepository::SendDelete(const Context& ctx, const std::string& tag_or_digest,
                                    bool was_there) {
  Call call;
  call.what = fmt::format("delete '{}'", tag_or_digest);
  call.method = "DELETE";
  call.url = session_->Url(session_->origin(), "manifests/" + tag_or_digest);
  call.scope = RepositoryScope(session_->repository(), "pull,push,delete");
  bool sent = false;
  return session_->Retry(ctx, [&]() -> Status {
    const bool again = std::exchange(sent, true);
    DAVIT_TRY_ASSIGN(const Reply reply, session_->Send(ctx, session_->origin(), call));
    const int status = reply.response.status;
    if (status == 200 || status == 202 || status == 204) return {};
    // An earlier try has done it, and only its answer got lost.
    if (status == 404 && again && was_there) return {};
    Error error = session_->Unexpected(reply, session_->origin(), call);
    // 400 is what registries without deletion of tags say; the digest is the way there.
    if (status == 405 || (status == 400 && !IsDigest(tag_or_digest))) {
      return std::move(error)
          .WithCode(Code::kUnsupported)
          .WithHint(
              "the registry does not delete this; allow deletion in its configuration, or "
              "delete by digest (all its tags go)");
    }
    return error;
  });
}

}  // namespace davit::registry
