#include "common/http/message.h"

#include <curl/curl.h>
#include <fmt/format.h>
#include <strings.h>

#include <algorithm>
#include <charconv>
#include <memory>

namespace davit::http {
namespace {

bool SameName(std::string_view a, std::string_view b) {
  return a.size() == b.size() && ::strncasecmp(a.data(), b.data(), a.size()) == 0;
}

struct CurlUrlDeleter {
  void operator()(CURLU* url) const { curl_url_cleanup(url); }
};
using CurlUrl = std::unique_ptr<CURLU, CurlUrlDeleter>;

/// One part of a parsed URL; empty when it has none.
std::string Part(CURLU* url, CURLUPart part, unsigned flags = 0) {
  char* raw = nullptr;
  if (curl_url_get(url, part, &raw, flags) != CURLUE_OK || raw == nullptr) return {};
  std::string out(raw);
  curl_free(raw);
  return out;
}

std::string Lower(std::string text) {
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return text;
}

constexpr std::size_t kMaxUrlBytes = 16384;

Error BadUrl(std::string_view text, std::string_view why) {
  return Error(Code::kInvalidArgument,
               fmt::format("'{}' is not a usable URL: {}", text.substr(0, 200), why))
      .WithHint("write http://host[:port]/path or https://host[:port]/path");
}

/// A whole non-negative decimal number; nothing for anything else.
std::optional<std::uint64_t> ParseNumber(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty()) return std::nullopt;
  return value;
}

std::string_view Trim(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  return text;
}

}  // namespace

std::optional<std::string_view> Headers::Get(std::string_view name) const {
  for (const auto& [key, value] : items_) {
    if (SameName(key, name)) return value;
  }
  return std::nullopt;
}

std::vector<std::string_view> Headers::GetAll(std::string_view name) const {
  std::vector<std::string_view> out;
  for (const auto& [key, value] : items_) {
    if (SameName(key, name)) out.emplace_back(value);
  }
  return out;
}

void Headers::Set(std::string_view name, std::string value) {
  std::erase_if(items_, [&](const auto& item) { return SameName(item.first, name); });
  items_.emplace_back(std::string(name), std::move(value));
}

Result<Url> Url::Parse(std::string_view text) {
  if (text.size() > kMaxUrlBytes) return BadUrl(text, "it is too long");
  const CurlUrl parsed(curl_url());
  const std::string copy(text);
  if (copy.find('\0') != std::string::npos) return BadUrl(text, "it holds a NUL byte");
  const CURLUcode rc = curl_url_set(parsed.get(), CURLUPART_URL, copy.c_str(),
                                    CURLU_NON_SUPPORT_SCHEME | CURLU_DISALLOW_USER);
  if (rc != CURLUE_OK) return BadUrl(text, curl_url_strerror(rc));
  Url out;
  out.scheme = Lower(Part(parsed.get(), CURLUPART_SCHEME));
  if (out.scheme != "http" && out.scheme != "https")
    return BadUrl(text, "the scheme is neither http nor https");
  out.host = Lower(Part(parsed.get(), CURLUPART_HOST));
  if (out.host.starts_with('[') && out.host.ends_with(']'))
    out.host = out.host.substr(1, out.host.size() - 2);
  if (out.host.empty()) return BadUrl(text, "it has no host");
  const auto port = ParseNumber(Part(parsed.get(), CURLUPART_PORT, CURLU_DEFAULT_PORT));
  if (!port || *port == 0 || *port > 65535) return BadUrl(text, "the port is out of range");
  out.port = static_cast<std::uint16_t>(*port);
  out.path = Part(parsed.get(), CURLUPART_PATH);
  if (out.path.empty()) out.path = "/";
  const std::string query = Part(parsed.get(), CURLUPART_QUERY);
  if (!query.empty()) out.path += "?" + query;
  return out;
}

std::string Url::Origin() const {
  const bool ipv6 = host.find(':') != std::string::npos;
  const bool standard = (scheme == "http" && port == 80) || (scheme == "https" && port == 443);
  std::string out = scheme + "://" + (ipv6 ? "[" + host + "]" : host);
  if (!standard) out += fmt::format(":{}", port);
  return out;
}

std::string Url::ToString() const { return Origin() + path; }

Result<Url> Url::Resolve(std::string_view location) const {
  if (location.size() > kMaxUrlBytes) return BadUrl(location, "it is too long");
  if (location.find('\0') != std::string_view::npos) return BadUrl(location, "it holds a NUL byte");
  const CurlUrl base(curl_url());
  CURLUcode rc = curl_url_set(base.get(), CURLUPART_URL, ToString().c_str(), 0);
  if (rc == CURLUE_OK)
    rc = curl_url_set(base.get(), CURLUPART_URL, std::string(location).c_str(),
                      CURLU_NON_SUPPORT_SCHEME);
  if (rc != CURLUE_OK) return BadUrl(location, curl_url_strerror(rc));
  return Parse(Part(base.get(), CURLUPART_URL));
}

std::string UrlEncode(std::string_view text) {
  std::string out;
  for (char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '-' || c == '.' || c == '_' || c == '~';
    if (plain) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

std::optional<std::chrono::seconds> ParseRetryAfter(std::string_view value,
                                                    std::chrono::system_clock::time_point now) {
  constexpr std::chrono::seconds kMax{3600};
  value = Trim(value);
  if (const auto seconds = ParseNumber(value)) {
    return std::min(
        std::chrono::seconds(static_cast<std::int64_t>(std::min<std::uint64_t>(*seconds, 3600))),
        kMax);
  }
  const std::time_t date = curl_getdate(std::string(value).c_str(), nullptr);
  if (date < 0) return std::nullopt;
  // In seconds: the year 3000 is more nanoseconds than the system clock's type holds.
  const std::chrono::seconds wait(date - std::chrono::system_clock::to_time_t(now));
  return std::clamp(wait, std::chrono::seconds(0), kMax);
}

Result<ContentRange> ContentRange::Parse(std::string_view value) {
  const auto bad = [&] {
    return Error(Code::kDataLoss,
                 fmt::format("Content-Range '{}' is malformed", value.substr(0, 100)));
  };
  std::string_view rest = Trim(value);
  if (!rest.starts_with("bytes ")) return bad();
  rest.remove_prefix(6);
  const std::size_t dash = rest.find('-');
  const std::size_t slash = rest.find('/');
  if (dash == std::string_view::npos || slash == std::string_view::npos || dash > slash)
    return bad();
  const auto first = ParseNumber(Trim(rest.substr(0, dash)));
  const auto last = ParseNumber(Trim(rest.substr(dash + 1, slash - dash - 1)));
  const std::string_view total = Trim(rest.substr(slash + 1));
  if (!first || !last || *last < *first || *last == UINT64_MAX) return bad();
  ContentRange out;
  out.range = {*first, *last - *first + 1};
  if (total != "*") {
    out.total = ParseNumber(total);
    if (!out.total || *last >= *out.total) return bad();
  }
  return out;
}

}  // namespace davit::http
