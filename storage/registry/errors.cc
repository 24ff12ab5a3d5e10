#include "storage/registry/errors.h"

#include <fmt/format.h>

#include <algorithm>

#include "storage/blob/blob.h"
#include "storage/registry/replies.h"

namespace davit::registry {
namespace {

constexpr std::size_t kMaxText = 200;

Code CodeOf(int status) {
  if (IsTransientStatus(status)) return Code::kUnavailable;
  switch (status) {
    case 401:
      return Code::kUnauthenticated;
    case 403:
      return Code::kPermissionDenied;
    case 404:
      return Code::kNotFound;
    case 405:
    case 501:
      return Code::kUnsupported;
    case 413:
    case 507:
      return Code::kResourceExhausted;
    case 416:
      return Code::kDataLoss;
    default:
      break;
  }
  if (status >= 500) return Code::kUnavailable;
  return status >= 400 ? Code::kFailedPrecondition : Code::kUnavailable;
}

/// `said`: the registry's own code. It tells what is missing; HEAD replies have none.
std::string_view HintOf(int status, std::string_view said) {
  if (said.starts_with("NAME_UNKNOWN"))
    return "check the name of the repository; private ones may be hidden like this: log in";
  if (said.starts_with("MANIFEST_UNKNOWN"))
    return "check the tag or digest: the repository has none of this name";
  if (said.starts_with("BLOB_UNKNOWN"))
    return "the registry has lost it, or never got it: push the image again";
  switch (status) {
    case 401:
      return "check the credentials for this registry";
    case 403:
      return "the credentials do not permit this; ask the registry's owner for access";
    case 404:
      return "check the name and the tag or digest";
    case 405:
    case 501:
      return "the registry does not offer this; its configuration may allow it";
    case 413:
    case 507:
      return "the registry has no room for it; ask its owner for a larger quota";
    case 429:
      return "the registry limits the number of requests; wait, log in, or use a mirror";
    default:
      break;
  }
  if (IsTransientStatus(status) || status >= 500)
    return "the registry has trouble of its own; try again, and look at its log if it stays";
  return {};
}

}  // namespace

std::string CleanText(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (out.size() >= kMaxText) {
      out += "…";
      break;
    }
    out += (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) ? ' ' : c;
  }
  return out;
}

bool IsTransientStatus(int status) {
  switch (status) {
    case 408:
    case 429:
    case 499:
    case 500:
    case 502:
    case 503:
    case 504:
    case 522:
      return true;
    default:
      return false;
  }
}

Error ErrorFromReply(const http::Response& reply, std::string_view what,
                     std::chrono::system_clock::time_point now) {
  std::string text = fmt::format("{}: HTTP status {}", what, reply.status);
  const std::string detail = RegistryText(reply.body);
  if (!detail.empty()) text += " " + detail;
  Error error = Error(CodeOf(reply.status), std::move(text)).WithHint(HintOf(reply.status, detail));
  if (IsTransientStatus(reply.status)) {
    if (const auto wait = RetryAfterOf(reply, now)) return std::move(error).WithRetryAfter(*wait);
  }
  return error;
}

std::optional<std::chrono::seconds> RetryAfterOf(const http::Response& reply,
                                                 std::chrono::system_clock::time_point now) {
  const auto value = reply.headers.Get("Retry-After");
  const auto wait = value ? http::ParseRetryAfter(*value, now) : std::nullopt;
  if (!wait) return std::nullopt;
  return std::min(*wait, storage::kMaxRetryAfter);
}

bool IsTransient(const Error& error) {
  return error.code() == Code::kUnavailable || error.code() == Code::kDeadlineExceeded;
}

std::string ShownUrl(std::string_view url) {
  url = url.substr(0, url.find_first_of("?#"));
  std::string out(url);
  if (const std::size_t scheme = out.find("://"); scheme != std::string::npos) {
    const std::size_t end = out.find('/', scheme + 3);
    const std::size_t at = out.substr(0, end).rfind('@');
    if (at != std::string::npos) out.erase(scheme + 3, at + 1 - (scheme + 3));
  }
  return CleanText(out);
}

}  // namespace davit::registry
