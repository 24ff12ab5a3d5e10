// What clients send.

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>

#include "common/json/json.h"
#include "daemon/api/types.h"

namespace davit::daemon::api {
namespace {

constexpr std::size_t kMaxBody = 1U << 20;
constexpr std::size_t kMaxPaths = 10'000;

Error Bad(std::string message, std::string_view hint = {}) {
  return Error(Code::kInvalidArgument, std::move(message)).WithHint(hint);
}

Result<nlohmann::json> ParseObject(std::string_view text,
                                   std::initializer_list<std::string_view> known) {
  DAVIT_TRY_ASSIGN(nlohmann::json body, json::Parse(text, "request body", kMaxBody));
  if (!body.is_object()) return Bad("the request body is not a JSON object");
  for (const auto& [key, value] : body.items()) {
    if (std::ranges::find(known, key) != known.end()) continue;
    return Bad(fmt::format("unknown member \"{}\" in the request body", key),
               fmt::format("known ones: {}", fmt::join(known, ", ")));
  }
  return body;
}

bool HasControl(std::string_view text) {
  return std::ranges::any_of(
      text, [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; });
}

}  // namespace

Result<Ready> ParseReady(std::string_view text) {
  for (const Ready ready : {Ready::kMounted, Ready::kPrefetched, Ready::kComplete}) {
    if (ReadyName(ready) == text) return ready;
  }
  return Bad(fmt::format("\"{}\" is not a ready mode", text), "mounted, prefetched or complete");
}

std::string_view ReadyName(Ready ready) {
  switch (ready) {
    case Ready::kMounted:
      return "mounted";
    case Ready::kPrefetched:
      return "prefetched";
    case Ready::kComplete:
      return "complete";
  }
  return "";
}

Status CheckMountId(std::string_view id) {
  constexpr std::string_view kAllowed =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
  if (!id.empty() && id.size() <= 128 && id.find_first_not_of(kAllowed) == std::string_view::npos) {
    return {};
  }
  return Bad(fmt::format("\"{}\" is not a mount id", id.substr(0, 160)),
             "1 to 128 letters, digits, '.', '_' and '-'");
}

Status MountRequest::Validate() const {
  DAVIT_TRY(CheckMountId(id));
  if (source.empty()) return Bad("source is missing", "an image reference or oci:/path:tag");
  if (source.size() > 4096 || HasControl(source)) return Bad("source is not an image reference");
  if (!mountpoint.starts_with('/') || mountpoint.size() > 4095 || HasControl(mountpoint)) {
    return Bad(fmt::format("mountpoint \"{}\" is not an absolute path", mountpoint.substr(0, 160)));
  }
  if (mountpoint.find_first_not_of('/') == std::string::npos) {
    return Bad("mountpoint is the root directory");
  }
  if (volume.size() > 256 || HasControl(volume)) {
    return Bad("volume is not the name of a volume",
               "at most 256 bytes without control characters");
  }
  const std::string padded = mountpoint + "/";
  if (padded.find("/../") != std::string::npos) {
    return Bad(fmt::format("mountpoint \"{}\" holds \"..\"", mountpoint));
  }
  return {};
}

Result<MountRequest> MountRequest::FromJson(std::string_view text) {
  DAVIT_TRY_ASSIGN(const nlohmann::json body,
                   ParseObject(text, {"id", "source", "mountpoint", "platform", "ready", "fill",
                                      "plain_http", "volume", "registry_auth"}));
  MountRequest out;
  DAVIT_TRY_ASSIGN(out.id, json::NeedString(body, "id"));
  DAVIT_TRY_ASSIGN(out.source, json::NeedString(body, "source"));
  DAVIT_TRY_ASSIGN(out.mountpoint, json::NeedString(body, "mountpoint"));
  DAVIT_TRY_ASSIGN(const auto platform, json::GetString(body, "platform"));
  out.platform = platform.value_or("");
  DAVIT_TRY_ASSIGN(const auto ready, json::GetString(body, "ready"));
  if (ready) {
    DAVIT_TRY_ASSIGN(out.ready, ParseReady(*ready));
  }
  DAVIT_TRY_ASSIGN(const auto fill, json::GetBool(body, "fill"));
  out.fill = fill.value_or(true);
  DAVIT_TRY_ASSIGN(const auto plain, json::GetBool(body, "plain_http"));
  out.plain_http = plain.value_or(false);
  DAVIT_TRY_ASSIGN(auto volume, json::GetString(body, "volume"));
  out.volume = std::move(volume).value_or("");
  DAVIT_TRY_ASSIGN(auto auth, json::GetString(body, "registry_auth"));
  if (auth) out.registry_auth = Secret(*std::move(auth));
  DAVIT_TRY(out.Validate());
  return out;
}

std::string MountRequest::ToJson() const {
  nlohmann::ordered_json out{{"id", id}, {"source", source}, {"mountpoint", mountpoint}};
  if (!platform.empty()) out["platform"] = platform;
  out["ready"] = ReadyName(ready);
  out["fill"] = fill;
  out["plain_http"] = plain_http;
  if (!volume.empty()) out["volume"] = volume;
  if (!registry_auth.empty()) out["registry_auth"] = registry_auth.Reveal();
  return out.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

Result<PrefetchRequest> PrefetchRequest::FromJson(std::string_view text) {
  PrefetchRequest out;
  if (text.empty()) return out;
  DAVIT_TRY_ASSIGN(const nlohmann::json body, ParseObject(text, {"paths"}));
  DAVIT_TRY_ASSIGN(const nlohmann::json* paths, json::GetArray(body, "paths"));
  if (paths == nullptr) return out;
  if (paths->size() > kMaxPaths) return Bad("too many paths", "at most 10000 in one request");
  for (const nlohmann::json& path : *paths) {
    if (!path.is_string()) return Bad("paths must be texts");
    out.paths.push_back(path.get<std::string>());
  }
  return out;
}

std::string PrefetchRequest::ToJson() const {
  const nlohmann::ordered_json out{{"paths", paths}};
  return out.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

}  // namespace davit::daemon::api
