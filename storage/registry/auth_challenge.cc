#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>

#include <cstring>

#include "storage/registry/auth.h"

namespace davit::registry {
namespace {

constexpr std::size_t kMaxHeader = 8 << 10;

bool IsTokenChar(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

std::string Lower(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  }
  return out;
}

/// A reader of RFC 9110's "#challenge"; every step moves forward, so it ends.
class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  std::vector<Challenge> Run() {
    std::vector<Challenge> out;
    while (i_ < text_.size()) {
      SkipSeparators();
      const std::string_view word = Token();
      if (word.empty()) {
        ++i_;  // something that has no place here
        continue;
      }
      const bool spaced = SkipSpace();
      if (i_ < text_.size() && text_[i_] == '=' && !out.empty()) {
        ++i_;
        SkipSpace();
        out.back().params.emplace(Lower(word), Value());
        continue;
      }
      out.push_back({Lower(word), {}});
      // "Negotiate dG9rZW4=": a token68 follows the scheme; it is of no use here.
      if (spaced) SkipToken68();
    }
    return out;
  }

 private:
  void SkipSeparators() {
    while (i_ < text_.size() && (IsSpace(text_[i_]) || text_[i_] == ',')) ++i_;
  }
  bool SkipSpace() {
    const std::size_t start = i_;
    while (i_ < text_.size() && IsSpace(text_[i_])) ++i_;
    return i_ > start;
  }
  std::string_view Token() {
    const std::size_t start = i_;
    while (i_ < text_.size() && IsTokenChar(text_[i_])) ++i_;
    return text_.substr(start, i_ - start);
  }
  std::string Value() {
    if (i_ >= text_.size() || text_[i_] != '"') {
      // Unquoted values are tokens, but realms are seen unquoted, too.
      const std::size_t start = i_;
      while (i_ < text_.size() && text_[i_] != ',' && !IsSpace(text_[i_])) ++i_;
      return std::string(text_.substr(start, i_ - start));
    }
    std::string out;
    for (++i_; i_ < text_.size() && text_[i_] != '"'; ++i_) {
      if (text_[i_] == '\\' && i_ + 1 < text_.size()) ++i_;
      out += text_[i_];
    }
    if (i_ < text_.size()) ++i_;
    return out;
  }
  void SkipToken68() {
    const std::size_t start = i_;
    while (i_ < text_.size() && (IsTokenChar(text_[i_]) || text_[i_] == '/')) ++i_;
    while (i_ < text_.size() && text_[i_] == '=') ++i_;
    const std::size_t end = i_;
    SkipSpace();
    if (end == start || (i_ < text_.size() && text_[i_] != ',')) i_ = start;
  }
  static bool IsSpace(char c) { return c == ' ' || c == '\t'; }

  std::string_view text_;
  std::size_t i_ = 0;
};

bool LinkLocal4(std::uint32_t host_order) { return (host_order >> 16) == 0xA9FE; }

}  // namespace

std::vector<Challenge> ParseChallenges(std::string_view header) {
  return Parser(header.substr(0, kMaxHeader)).Run();
}

bool IsLinkLocal(std::string_view host_text) {
  std::string host = Lower(host_text);
  while (host.ends_with('.')) host.pop_back();
  if (const std::size_t zone = host.find('%'); zone != std::string::npos) host.resize(zone);
  if (host == "metadata.google.internal" || host == "metadata" || host == "instance-data")
    return true;
  in_addr v4{};
  // inet_aton also reads "2852039166", "0xa9fea9fe" and "169.16689662", as resolvers do.
  if (inet_aton(host.c_str(), &v4) != 0) return LinkLocal4(ntohl(v4.s_addr));
  in6_addr v6{};
  if (inet_pton(AF_INET6, host.c_str(), &v6) != 1) return false;
  if (IN6_IS_ADDR_LINKLOCAL(&v6)) return true;
  if (IN6_IS_ADDR_V4MAPPED(&v6) || IN6_IS_ADDR_V4COMPAT(&v6)) {
    std::uint32_t mapped = 0;
    std::memcpy(&mapped, &v6.s6_addr[12], sizeof mapped);
    return LinkLocal4(ntohl(mapped));
  }
  in6_addr aws{};
  inet_pton(AF_INET6, "fd00:ec2::254", &aws);
  return std::memcmp(&aws, &v6, sizeof v6) == 0;
}

Status CheckRealm(const http::Url& registry, const std::string& realm) {
  const auto refuse = [&](std::string_view why) {
    // The realm is the registry's word and may carry anything: it is shown without its query.
    const std::string shown = realm.substr(0, realm.find_first_of("?#")).substr(0, 200);
    return Error(Code::kUnauthenticated,
                 fmt::format("{} names the token server '{}', which is refused: {}",
                             registry.Origin(), shown.find('@') == std::string::npos ? shown : "…",
                             why))
        .WithHint("check the registry's configuration");
  };
  Result<http::Url> url = http::Url::Parse(realm);
  if (!url) return refuse("it is not an http or https URL without user information");
  if (url->scheme != "https" && registry.scheme == "https")
    return refuse("it would take credentials over plain http");
  if (IsLinkLocal(url->host) && !IsLinkLocal(registry.host))
    return refuse("it is a link-local or metadata address");
  return {};
}

std::string RepositoryScope(std::string_view repository, std::string_view actions) {
  return fmt::format("repository:{}:{}", repository, actions);
}

}  // namespace davit::registry
