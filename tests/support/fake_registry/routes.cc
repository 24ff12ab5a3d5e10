#include "tests/support/fake_registry/routes.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <nlohmann/json.hpp>

#include "common/json/json.h"

namespace davit::testing {
namespace {

using nlohmann::json;

WireResponse Fail(int status, const std::string& code) {
  WireResponse out;
  out.status = status;
  out.headers["Content-Type"] = "application/json";
  out.body.text = davit::json::Dump(
      {{"errors", json::array({{{"code", code}, {"message", "fake registry: " + code}}})}});
  return out;
}

std::string DecodeBase64(std::string_view text) {
  static constexpr std::string_view kAlphabet =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::string out;
  unsigned bits = 0;
  int have = 0;
  for (char c : text) {
    const std::size_t value = kAlphabet.find(c);
    if (value == std::string_view::npos) break;
    bits = (bits << 6) | static_cast<unsigned>(value);
    have += 6;
    if (have >= 8) {
      have -= 8;
      out += static_cast<char>((bits >> have) & 0xff);
    }
  }
  return out;
}

/// "bytes=a-b" against a size; false when it cannot be satisfied.
bool ParseRange(std::string_view text, std::uint64_t size, std::uint64_t& first,
                std::uint64_t& last) {
  if (!text.starts_with("bytes=")) return false;
  text.remove_prefix(6);
  const char* end = text.data() + text.size();
  const auto [after, error] = std::from_chars(text.data(), end, first);
  if (error != std::errc() || after == end || *after != '-') return false;
  last = size - 1;
  if (after + 1 != end && std::from_chars(after + 1, end, last).ec != std::errc()) return false;
  last = std::min(last, size - 1);
  return first <= last && first < size;
}

}  // namespace

bool Routes::Authorized(const WireRequest& request) {
  if (options_.auth == FakeRegistry::Options::Auth::kNone) return true;
  const std::string header = request.Header("authorization");
  if (options_.auth == FakeRegistry::Options::Auth::kBasic) {
    if (!header.starts_with("Basic ")) return false;
    const std::string pair = DecodeBase64(std::string_view(header).substr(6));
    const std::size_t colon = pair.find(':');
    const auto user = options_.users.find(pair.substr(0, colon));
    return colon != std::string::npos && user != options_.users.end() &&
           user->second == pair.substr(colon + 1);
  }
  if (!header.starts_with("Bearer ")) return false;
  MutexLock lock(mutex_);
  const auto token = tokens_.find(header.substr(7));
  return token != tokens_.end() && std::chrono::steady_clock::now() < token->second;
}

WireResponse Routes::Unauthorized(const std::string& repository, bool push) {
  WireResponse out = Fail(401, "UNAUTHORIZED");
  if (options_.auth == FakeRegistry::Options::Auth::kBasic) {
    out.headers["WWW-Authenticate"] = "Basic realm=\"fake\"";
    return out;
  }
  std::string challenge = fmt::format("Bearer realm=\"{}\",service=\"fake\"",
                                      options_.realm.empty() ? origin_ + "/token" : options_.realm);
  if (!repository.empty())
    challenge += fmt::format(",scope=\"repository:{}:pull{}\"", repository, push ? ",push" : "");
  out.headers["WWW-Authenticate"] = challenge;
  return out;
}

WireResponse Routes::Token(const WireRequest& request) {
  if (!options_.users.empty()) {
    const std::string header = request.Header("authorization");
    const std::string pair =
        header.starts_with("Basic ") ? DecodeBase64(std::string_view(header).substr(6)) : "";
    const std::size_t colon = std::min(pair.find(':'), pair.size());
    const auto user = options_.users.find(pair.substr(0, colon));
    if (user == options_.users.end() ||
        user->second != pair.substr(std::min(colon + 1, pair.size())))
      return Fail(401, "UNAUTHORIZED");
  }
  MutexLock lock(mutex_);
  const std::string token = fmt::format("token-{}", ++next_id_);
  tokens_[token] = std::chrono::steady_clock::now() + std::chrono::seconds(options_.token_seconds);
  WireResponse out;
  out.headers["Content-Type"] = "application/json";
  out.body.text = davit::json::Dump({{"token", token}, {"expires_in", options_.token_seconds}});
  return out;
}

void Routes::ExpireTokens() {
  MutexLock lock(mutex_);
  tokens_.clear();
}

WireResponse Routes::Manifest(const WireRequest& request, const std::string& repository,
                              const std::string& reference) {
  WireResponse out;
  if (request.method == "PUT") {
    const std::string digest =
        store_.PutManifest(repository, reference, request.Header("content-type"), request.body);
    if (reference.starts_with("sha256:") && reference != digest) return Fail(400, "DIGEST_INVALID");
    out.status = 201;
    out.headers["Location"] = Location("/v2/" + repository + "/manifests/" + digest);
    out.headers["Docker-Content-Digest"] = digest;
    const auto doc = davit::json::Parse(request.body, "manifest");
    if (options_.referrers_api && doc.ok() && doc->contains("subject"))
      out.headers["OCI-Subject"] = (*doc)["subject"].value("digest", "");
    return out;
  }
  if (request.method == "DELETE") {
    if (!reference.starts_with("sha256:") && !options_.tag_delete) return Fail(405, "UNSUPPORTED");
    if (!store_.EraseManifest(repository, reference)) return Fail(404, "MANIFEST_UNKNOWN");
    out.status = 202;
    return out;
  }
  const auto manifest = store_.GetManifest(repository, reference);
  if (!manifest) return Fail(404, "MANIFEST_UNKNOWN");
  out.headers["Content-Type"] = manifest->media_type;
  out.headers["Docker-Content-Digest"] = manifest->digest;
  out.body.text = manifest->content;
  return out;
}

WireResponse Routes::Blob(const WireRequest& request, const std::string& repository,
                          const std::string& digest) {
  WireResponse out;
  if (request.method == "DELETE") {
    out.status = store_.EraseBlob(repository, digest) ? 202 : 404;
    return out;
  }
  auto body = store_.GetBlob(repository, digest);
  if (!body) return Fail(404, "BLOB_UNKNOWN");
  out.body = *std::move(body);
  out.headers["Content-Type"] = "application/octet-stream";
  out.headers["Docker-Content-Digest"] = digest;
  out.headers["Accept-Ranges"] = "bytes";
  const std::string range = request.Header("range");
  if (range.empty() || request.method == "HEAD") return out;
  const std::uint64_t size = out.body.length();
  std::uint64_t first = 0;
  std::uint64_t last = 0;
  if (!ParseRange(range, size, first, last)) {
    WireResponse bad = Fail(416, "RANGE_INVALID");
    bad.headers["Content-Range"] = fmt::format("bytes */{}", size);
    return bad;
  }
  out.status = 206;
  out.headers["Content-Range"] = fmt::format("bytes {}-{}/{}", first, last, size);
  if (out.body.file.empty()) {
    out.body.text = out.body.text.substr(first, last - first + 1);
  } else {
    out.body.offset = first;
    out.body.size = last - first + 1;
  }
  return out;
}

WireResponse Routes::FinishUpload(const std::string& repository, const std::string& digest,
                                  std::string content) {
  if (Sha256(content) != digest) return Fail(400, "DIGEST_INVALID");
  store_.PutBlob(repository, std::move(content));
  WireResponse out;
  out.status = 201;
  out.headers["Location"] = Location("/v2/" + repository + "/blobs/" + digest);
  out.headers["Docker-Content-Digest"] = digest;
  return out;
}

WireResponse Routes::Upload(const WireRequest& request, const std::string& repository,
                            const std::string& id) {
  const std::string digest = request.Param("digest");
  WireResponse out;
  if (request.method == "POST") {
    const std::string mount = request.Param("mount");
    if (!mount.empty() && store_.LinkBlob(repository, mount)) {
      out.status = 201;
      out.headers["Location"] = Location("/v2/" + repository + "/blobs/" + mount);
      return out;
    }
    if (!digest.empty()) return FinishUpload(repository, digest, request.body);
    MutexLock lock(mutex_);
    const std::string fresh = fmt::format("u{}", ++next_id_);
    uploads_[fresh] = "";
    out.status = 202;
    out.headers["Location"] =
        Location("/v2/" + repository + "/blobs/uploads/" + fresh + "?state=x");
    if (options_.chunk_min_length > 0)
      out.headers["OCI-Chunk-Min-Length"] = std::to_string(options_.chunk_min_length);
    return out;
  }
  std::string content;
  {
    MutexLock lock(mutex_);
    const auto upload = uploads_.find(id);
    if (upload == uploads_.end()) return Fail(404, "BLOB_UPLOAD_UNKNOWN");
    if (request.method == "DELETE") {
      uploads_.erase(upload);
      out.status = 204;
      return out;
    }
    const std::string range = request.Header("content-range");
    if (request.method == "PATCH" && !range.empty() &&
        range.substr(0, range.find('-')) != std::to_string(upload->second.size())) {
      out = Fail(416, "BLOB_UPLOAD_INVALID");
    } else if (request.method != "GET") {
      upload->second += request.body;
    }
    if (request.method != "PUT") {
      if (out.status != 416) out.status = request.method == "GET" ? 204 : 202;
      out.headers["Location"] = Location("/v2/" + repository + "/blobs/uploads/" + id + "?state=x");
      out.headers["Range"] =
          fmt::format("0-{}", upload->second.empty() ? 0 : upload->second.size() - 1);
      return out;
    }
    content = upload->second;
    uploads_.erase(upload);
  }
  return FinishUpload(repository, digest, std::move(content));
}

WireResponse Routes::Tags(const WireRequest& request, const std::string& repository) {
  std::vector<std::string> tags = store_.Tags(repository);
  std::erase_if(tags,
                [last = request.Param("last")](const std::string& tag) { return tag <= last; });
  std::size_t limit = options_.page_size;
  const std::string n = request.Param("n");
  std::size_t asked = 0;
  if (std::from_chars(n.data(), n.data() + n.size(), asked).ec == std::errc())
    limit = std::min(limit, asked);
  WireResponse out;
  if (tags.size() > limit) {
    tags.resize(limit);
    out.headers["Link"] = fmt::format(
        "<{}>; rel=\"next\"",
        Location(fmt::format("/v2/{}/tags/list?n={}&last={}", repository, limit, tags.back())));
  }
  out.headers["Content-Type"] = "application/json";
  out.body.text = davit::json::Dump({{"name", repository}, {"tags", tags}});
  return out;
}

WireResponse Routes::Referrers(const WireRequest& request, const std::string& repository,
                               const std::string& digest) {
  if (!options_.referrers_api) return Fail(404, "NOT_FOUND");
  const std::string wanted = request.Param("artifactType");
  json list = json::array();
  for (const StoredManifest& manifest : store_.Manifests(repository)) {
    const auto doc = davit::json::Parse(manifest.content, "manifest");
    if (!doc.ok() || !doc->contains("subject") || (*doc)["subject"].value("digest", "") != digest)
      continue;
    const std::string type = doc->value("artifactType", "");
    if (!wanted.empty() && type != wanted) continue;
    list.push_back({{"mediaType", manifest.media_type},
                    {"digest", manifest.digest},
                    {"size", manifest.content.size()},
                    {"artifactType", type}});
  }
  WireResponse out;
  out.headers["Content-Type"] = "application/vnd.oci.image.index.v1+json";
  if (!wanted.empty()) out.headers["OCI-Filters-Applied"] = "artifactType";
  out.body.text = davit::json::Dump({{"schemaVersion", 2},
                                     {"mediaType", "application/vnd.oci.image.index.v1+json"},
                                     {"manifests", list}});
  return out;
}

WireResponse Routes::Handle(const WireRequest& request) {
  if (request.path == "/token") return Token(request);
  if (!request.path.starts_with("/v2/")) return Fail(404, "NOT_FOUND");
  const std::string rest = request.path.substr(4);
  const bool push = request.method != "GET" && request.method != "HEAD";
  auto split = [&](std::string_view marker) -> std::optional<std::pair<std::string, std::string>> {
    const std::size_t at = rest.rfind(marker);
    if (at == std::string::npos || at == 0) return std::nullopt;
    return std::pair(rest.substr(0, at), rest.substr(at + marker.size()));
  };
  const auto upload = split("/blobs/uploads/");
  const auto blob = split("/blobs/");
  const auto manifest = split("/manifests/");
  const auto tags = split("/tags/list");
  const auto referrers = split("/referrers/");
  std::string repository;
  for (const auto& part : {upload, blob, manifest, tags, referrers}) {
    if (part && repository.empty()) repository = part->first;
  }
  if (!Authorized(request)) return Unauthorized(repository, push);
  if (rest.empty()) return {};
  if (upload) return Upload(request, upload->first, upload->second);
  if (blob) return Blob(request, blob->first, blob->second);
  if (manifest) return Manifest(request, manifest->first, manifest->second);
  if (tags) return Tags(request, tags->first);
  if (referrers) return Referrers(request, referrers->first, referrers->second);
  return Fail(404, "NOT_FOUND");
}

}  // namespace davit::testing
