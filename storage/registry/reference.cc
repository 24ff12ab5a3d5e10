#include "storage/registry/reference.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "common/digest/digest.h"

namespace davit::registry {
namespace {

constexpr std::string_view kLayoutPrefix = "oci:";
constexpr std::string_view kExample = "for example ghcr.io/owner/app:v1 or oci:/path/to/layout:v1";
constexpr std::size_t kMaxReference = 4096;
constexpr std::size_t kMaxRepository = 255;
constexpr std::size_t kMaxTag = 128;

bool IsLower(char c) { return c >= 'a' && c <= 'z'; }
bool IsUpper(char c) { return c >= 'A' && c <= 'Z'; }
bool IsDigit(char c) { return c >= '0' && c <= '9'; }
bool IsAlnum(char c) { return IsLower(c) || IsUpper(c) || IsDigit(c); }

Error Bad(std::string_view text, std::string_view why) {
  return Error(Code::kInvalidArgument, fmt::format("'{}' is not an image name: {}", text, why))
      .WithHint(kExample);
}

bool ValidPort(std::string_view port) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(port.data(), port.data() + port.size(), value);
  return error == std::errc() && end == port.data() + port.size() && port.size() <= 5 &&
         value >= 1 && value <= 65535;
}

bool ValidIpv6(std::string_view text) {
  return !text.empty() && text.size() <= 45 && std::all_of(text.begin(), text.end(), [](char c) {
    return IsDigit(c) || (c >= 'a' && c <= 'f') || c == ':' || c == '.';
  });
}

/// Labels of letters, digits and inner hyphens, separated by single dots.
bool ValidDomain(std::string_view text) {
  if (text.empty() || text.size() > 253) return false;
  char previous = '.';
  for (const char c : text) {
    if (!IsAlnum(c) && c != '-' && c != '.' && c != '_') return false;
    if (!IsAlnum(c) && !IsAlnum(previous) && (c == '.' || previous == '.')) return false;
    previous = c;
  }
  return IsAlnum(previous);
}

bool ValidHost(std::string_view host) {
  if (host.starts_with('[')) {
    const std::size_t end = host.find(']');
    if (end == std::string_view::npos || !ValidIpv6(host.substr(1, end - 1))) return false;
    const std::string_view rest = host.substr(end + 1);
    return rest.empty() || (rest.starts_with(':') && ValidPort(rest.substr(1)));
  }
  const std::size_t colon = host.find(':');
  if (colon == std::string_view::npos) return ValidDomain(host);
  return ValidDomain(host.substr(0, colon)) && ValidPort(host.substr(colon + 1));
}

/// One component between slashes: lower-case letters and digits, joined by ".", "_", "__" or
/// hyphens.
bool ValidComponent(std::string_view text) {
  std::size_t i = 0;
  const auto alnum = [&] {
    const std::size_t start = i;
    while (i < text.size() && (IsLower(text[i]) || IsDigit(text[i]))) ++i;
    return i > start;
  };
  if (!alnum()) return false;
  while (i < text.size()) {
    if (text[i] == '.') {
      ++i;
    } else if (text[i] == '_') {
      i += text.substr(i).starts_with("__") ? 2 : 1;
    } else {
      const std::size_t start = i;
      while (i < text.size() && text[i] == '-') ++i;
      if (i == start) return false;
    }
    if (!alnum()) return false;
  }
  return true;
}

bool ValidRepository(std::string_view text) {
  if (text.empty() || text.size() > kMaxRepository) return false;
  while (true) {
    const std::size_t slash = text.find('/');
    if (!ValidComponent(text.substr(0, slash))) return false;
    if (slash == std::string_view::npos) return true;
    text.remove_prefix(slash + 1);
  }
}

bool ValidTag(std::string_view text) {
  if (text.empty() || text.size() > kMaxTag) return false;
  if (!IsAlnum(text.front()) && text.front() != '_') return false;
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return IsAlnum(c) || c == '_' || c == '.' || c == '-'; });
}

/// Takes "@digest" and ":tag" off the end of `rest`.
Status TakeDigestAndTag(std::string_view text, std::string_view& rest, Reference& out) {
  if (const std::size_t at = rest.rfind('@');
      at != std::string_view::npos &&
      (out.kind == Reference::Kind::kRegistry || rest.substr(at + 1).starts_with("sha256:"))) {
    out.digest = std::string(rest.substr(at + 1));
    if (!OciDigest::Parse(out.digest)) {
      return Bad(text, fmt::format("the digest '{}' is not sha256: and 64 lower-case hex digits",
                                   out.digest));
    }
    rest = rest.substr(0, at);
  }
  const std::size_t slash = rest.rfind('/');
  const std::size_t colon = rest.rfind(':');
  if (colon == std::string_view::npos || (slash != std::string_view::npos && colon < slash))
    return {};
  out.tag = std::string(rest.substr(colon + 1));
  if (!ValidTag(out.tag)) {
    return Bad(text, fmt::format("the tag '{}' is not 1 to 128 letters, digits, '_', '.' or '-'",
                                 out.tag));
  }
  rest = rest.substr(0, colon);
  return {};
}

bool LooksLikeHost(std::string_view first) {
  return first == "localhost" || first.find_first_of(".:[") != std::string_view::npos ||
         std::any_of(first.begin(), first.end(), IsUpper);
}

std::string LowerCase(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (IsUpper(c)) c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

Result<Reference> ParseLayout(std::string_view text) {
  Reference out;
  out.kind = Reference::Kind::kOciLayout;
  std::string_view rest = text.substr(kLayoutPrefix.size());
  DAVIT_TRY(TakeDigestAndTag(text, rest, out));
  if (rest.empty()) return Bad(text, "the directory of the OCI layout is missing");
  out.repository = std::string(rest);
  return out;
}

Result<Reference> ParseRegistry(std::string_view text) {
  Reference out;
  std::string_view rest = text;
  // The colon of "host:5000/app" must not be taken for a tag's; a slash stands between them.
  DAVIT_TRY(TakeDigestAndTag(text, rest, out));
  const std::size_t slash = rest.find('/');
  const std::string_view first = rest.substr(0, slash);
  if (slash != std::string_view::npos && LooksLikeHost(first)) {
    out.host = LowerCase(first);
    if (!ValidHost(out.host))
      return Bad(text, fmt::format("'{}' is not a host name with an optional port", first));
    // Its canonical form would name a repository on docker.io.
    if (!LooksLikeHost(out.host)) {
      return Bad(
          text,
          fmt::format("'{}' can be a host by its capitals only; write it with its port", first));
    }
    rest = rest.substr(slash + 1);
  } else {
    out.host = "docker.io";
  }
  if (out.host == "index.docker.io" || out.host == "registry-1.docker.io") out.host = "docker.io";
  out.repository = std::string(rest);
  if (out.host == "docker.io" && !rest.contains('/')) out.repository.insert(0, "library/");
  if (!ValidRepository(out.repository)) {
    return Bad(text,
               fmt::format("the repository '{}' is not lower-case letters and digits, joined by "
                           "'.', '_', '-' and '/', at most 255 in all",
                           out.repository));
  }
  if (out.tag.empty() && out.digest.empty()) out.tag = "latest";
  return out;
}

}  // namespace

Result<Reference> Reference::Parse(std::string_view text) {
  if (text.empty()) return Bad(text, "it is empty");
  if (text.size() > kMaxReference)
    return Bad(text.substr(0, 64), fmt::format("it is longer than {} bytes", kMaxReference));
  if (std::any_of(text.begin(), text.end(), [](char c) { return c == '\0' || c == '\n'; }))
    return Bad("(with control characters)", "it holds a line break or a zero byte");
  if (text.find("://") != std::string_view::npos)
    return Bad(text, "it must not start with a scheme such as https:// or docker://");
  if (text.starts_with(kLayoutPrefix)) return ParseLayout(text);
  return ParseRegistry(text);
}

std::string Reference::ToString() const {
  std::string out = kind == Kind::kOciLayout ? std::string(kLayoutPrefix) : host + "/";
  out += repository;
  if (!tag.empty()) out += ":" + tag;
  if (!digest.empty()) out += "@" + digest;
  return out;
}

}  // namespace davit::registry
