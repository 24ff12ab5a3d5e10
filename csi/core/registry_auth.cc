#include "csi/core/registry_auth.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "common/json/json.h"
#include "csi/core/volume_spec.h"

namespace davit::csi {
namespace {

constexpr std::size_t kSecretLimit = 1ULL << 20;  // that of a Kubernetes Secret
// A shorter one is no password worth hiding, and would turn every text into asterisks.
constexpr std::size_t kMinSecret = 4;

Error BadSecret(std::string_view key, std::string_view why) {
  // The parser's own text may quote the input, so it is not passed on.
  return Error(Code::kInvalidArgument, fmt::format("secret {} {}", key, why))
      .WithHint("make it with: kubectl create secret docker-registry");
}

Result<nlohmann::json> ParseSecret(std::string_view key, const Secret& secret) {
  auto parsed = json::Parse(secret.Reveal(), "secret", kSecretLimit);
  if (!parsed.ok() || !parsed->is_object()) return BadSecret(key, "is not a JSON object");
  return *std::move(parsed);
}

void CollectStrings(const nlohmann::json& value, int depth, std::vector<std::string>& out) {
  if (depth > 8) return;
  if (value.is_string()) {
    out.push_back(value.get_ref<const std::string&>());
  } else if (value.is_structured()) {
    for (const auto& child : value) CollectStrings(child, depth + 1, out);
  }
}

std::string DecodeBase64(std::string_view text) {
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  for (const char c : text) {
    std::uint32_t value = 0;
    if (c >= 'A' && c <= 'Z')
      value = static_cast<std::uint32_t>(c - 'A');
    else if (c >= 'a' && c <= 'z')
      value = static_cast<std::uint32_t>(c - 'a' + 26);
    else if (c >= '0' && c <= '9')
      value = static_cast<std::uint32_t>(c - '0' + 52);
    else if (c == '+' || c == '-')
      value = 62;
    else if (c == '/' || c == '_')
      value = 63;
    else
      break;
    bits = (bits << 6) | value;
    count += 6;
    if (count >= 8) {
      count -= 8;
      out.push_back(static_cast<char>((bits >> count) & 0xff));
    }
  }
  return out;
}

void ReplaceAll(std::string& text, const std::string& what) {
  if (what.size() < kMinSecret) return;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at)) {
    text.replace(at, what.size(), kRedacted);
    at += std::string_view(kRedacted).size();
  }
}

}  // namespace

Result<Secret> RegistryAuthOf(const std::map<std::string, Secret>& secrets) {
  if (const auto it = secrets.find(".dockerconfigjson"); it != secrets.end()) {
    DAVIT_TRY_ASSIGN(const nlohmann::json config, ParseSecret(it->first, it->second));
    const auto auths = config.find("auths");
    if (auths == config.end() || !auths->is_object()) {
      return BadSecret(it->first, "has no object \"auths\"");
    }
    return it->second;
  }
  if (const auto it = secrets.find(".dockercfg"); it != secrets.end()) {
    DAVIT_TRY_ASSIGN(nlohmann::json auths, ParseSecret(it->first, it->second));
    nlohmann::json config = nlohmann::json::object();
    config["auths"] = std::move(auths);
    return Secret(json::Dump(config));
  }
  for (const auto& [key, value] : secrets) {
    if (IsKubernetesKey(key)) continue;
    return BadSecret(key.substr(0, 64), "is not known")
        .WithHint("the secret must be of type kubernetes.io/dockerconfigjson");
  }
  return Secret();
}

std::string WithoutSecrets(std::string text, const Secret& auth) {
  if (auth.empty()) return text;
  auto parsed = json::Parse(auth.Reveal(), "secret", kSecretLimit);
  if (!parsed.ok() || !parsed->is_object()) return text;
  const auto auths = parsed->find("auths");
  if (auths == parsed->end() || !auths->is_object()) return text;
  for (const auto& entry : *auths) {
    if (!entry.is_object()) continue;
    for (const auto& [key, value] : entry.items()) {
      // Who someone is may be shown; what proves it may not.
      if (key == "username" || key == "email") continue;
      std::vector<std::string> strings;
      CollectStrings(value, 0, strings);
      for (const std::string& secret : strings) {
        ReplaceAll(text, secret);
        if (key != "auth") continue;
        const std::string pair = DecodeBase64(secret);
        ReplaceAll(text, pair);
        if (const std::size_t colon = pair.find(':'); colon != std::string::npos) {
          ReplaceAll(text, pair.substr(colon + 1));
        }
      }
    }
  }
  return text;
}

}  // namespace davit::csi
