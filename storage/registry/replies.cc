#include "storage/registry/replies.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "common/json/json.h"
#include "storage/registry/errors.h"

namespace davit::registry {
namespace {

constexpr std::size_t kMaxTokenBytes = 64 << 10;
constexpr std::uint64_t kMaxSmall = 256 << 10;
constexpr std::uint64_t kMaxTagPage = 8ULL << 20;
constexpr std::chrono::seconds kDefaultLife{60};  // Docker's token specification
constexpr std::chrono::seconds kMaxLife{12 * 3600};

}  // namespace

Result<Grant> ParseGrant(std::string_view body) {
  DAVIT_TRY_ASSIGN(const nlohmann::json root, json::Parse(body, "its reply", kMaxSmall));
  DAVIT_TRY_ASSIGN(std::optional<std::string> token, json::GetString(root, "token"));
  if (!token || token->empty()) {
    DAVIT_TRY_ASSIGN(token, json::GetString(root, "access_token"));
  }
  const auto printable = [](char c) { return c > 0x20 && c < 0x7f; };
  if (!token || token->empty() || token->size() > kMaxTokenBytes ||
      !std::all_of(token->begin(), token->end(), printable))
    return Error(Code::kUnauthenticated, "its reply holds no usable token");
  std::chrono::seconds life = kDefaultLife;
  const auto it = root.find("expires_in");
  if (it != root.end() && it->is_number()) {
    const double seconds = it->get<double>();
    if (seconds > 0 && seconds < 1e9)
      life = std::max(std::chrono::seconds(1),
                      std::chrono::seconds(static_cast<std::int64_t>(seconds)));
  }
  return Grant{Secret("Bearer " + *token), std::min(life, kMaxLife)};
}

std::string RegistryText(std::string_view body) {
  Result<nlohmann::json> root = json::Parse(body, "error", kMaxSmall);
  if (!root.ok() || !root->is_object()) return {};
  const nlohmann::json* source = &*root;
  if (const auto it = root->find("errors"); it != root->end() && it->is_array() && !it->empty())
    source = &it->front();
  if (!source->is_object()) return {};
  std::string out;
  for (const std::string_view key : {"code", "error", "message", "details"}) {
    const Result<std::optional<std::string>> value = json::GetString(*source, key);
    if (!value.ok() || !*value || (*value)->empty()) continue;
    if (!out.empty()) out += ": ";
    out += **value;
  }
  return CleanText(out);
}

Result<std::vector<std::string>> ParseTags(std::string_view body) {
  DAVIT_TRY_ASSIGN(const nlohmann::json root, json::Parse(body, "the list of tags", kMaxTagPage));
  DAVIT_TRY_ASSIGN(const nlohmann::json* tags, json::GetArray(root, "tags"));
  std::vector<std::string> out;
  if (tags == nullptr) return out;
  out.reserve(tags->size());
  for (const nlohmann::json& tag : *tags) {
    if (!tag.is_string())
      return Error(Code::kInvalidArgument, "the list of tags holds something that is no string");
    out.push_back(tag.get<std::string>());
  }
  return out;
}

std::optional<std::string> NextLink(const http::Headers& headers) {
  for (const std::string_view value : headers.GetAll("Link")) {
    const std::size_t open = value.find('<');
    const std::size_t close = value.find('>', open);
    if (open == std::string_view::npos || close == std::string_view::npos) continue;
    const std::string_view params = value.substr(close);
    if (params.find("rel=\"next\"") != std::string_view::npos ||
        params.find("rel=next") != std::string_view::npos)
      return std::string(value.substr(open + 1, close - open - 1));
  }
  return std::nullopt;
}

Result<Credential> ParseHelperOutput(std::string_view program, std::string_view output) {
  DAVIT_TRY_ASSIGN(const nlohmann::json root,
                   json::Parse(output, fmt::format("the output of {}", program), kMaxSmall));
  DAVIT_TRY_ASSIGN(std::optional<std::string> user, json::GetString(root, "Username"));
  DAVIT_TRY_ASSIGN(std::optional<std::string> secret, json::GetString(root, "Secret"));
  Credential out;
  if (user == "<token>") {
    out.identity_token = Secret(secret.value_or(""));
  } else {
    out.username = user.value_or("");
    out.password = Secret(secret.value_or(""));
  }
  return out;
}

}  // namespace davit::registry
