#include "common/config/config.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <set>

#include "common/base/fd.h"
#include "common/base/nearest.h"
#include "common/config/fields.h"
#include "common/config/parse.h"
#include "common/config/units.h"
#include "common/json/json.h"

namespace davit::config {
namespace {

constexpr std::uint64_t kMaxFileBytes = 1U << 20;

std::string EnvOr(const GetEnv& env, const std::string& name, const std::string& fallback) {
  const std::optional<std::string> value = env(name);
  return value && value->starts_with('/') ? *value : fallback;
}

Error UnknownKey(std::string_view key, std::string_view where, std::string_view source) {
  Error error(Code::kInvalidArgument, fmt::format("{}: unknown key \"{}\"{}", source, key, where));
  if (const auto nearest = NearestKey(key)) {
    return std::move(error).WithHint(fmt::format("did you mean \"{}\"?", *nearest));
  }
  return std::move(error).WithHint("docs/configuration.md lists all keys");
}

Status ApplyFile(std::string_view text, std::string_view format, std::string_view source,
                 Config& config) {
  auto items = ParseFile(text, format);
  if (!items) return std::move(items).error().WithContext(source);
  for (const Item& item : *items) {
    if (item.key == "version") {
      if (item.text != std::to_string(kConfigVersion)) {
        return Error(Code::kUnsupported,
                     fmt::format("{}: version {} of the configuration is not known{}", source,
                                 item.text, item.where))
            .WithHint(fmt::format("this build reads version {}", kConfigVersion));
      }
      continue;
    }
    if (item.key.ends_with('.')) {  // an empty section
      const auto sections = Sections();
      const std::string name = item.key.substr(0, item.key.size() - 1);
      if (std::ranges::find(sections, name, &SectionInfo::name) == sections.end()) {
        return UnknownKey(name, item.where, source);
      }
      continue;
    }
    const FieldInfo* field = FindField(item.key);
    if (field == nullptr) return UnknownKey(item.key, item.where, source);
    if (Status set = SetFromItem(*field, item, config); !set) {
      return std::move(set).error().WithContext(
          fmt::format("{}: {}{}", source, item.key, item.where));
    }
  }
  return {};
}

Status ApplyEnvironment(const GetEnv& env, Config& config) {
  for (const FieldInfo& field : Fields()) {
    const std::string name = EnvName(field.key);
    const std::optional<std::string> value = env(name);
    if (!value) continue;
    if (Status set = SetFromText(field, *value, config); !set) {
      return std::move(set).error().WithContext(fmt::format("environment: {}", name));
    }
  }
  return {};
}

Status ApplyOverrides(const Sources& sources, Config& config) {
  for (const auto& [key, text] : sources.overrides) {
    const FieldInfo* field = FindField(key);
    if (field == nullptr) return UnknownKey(key, "", "command line");
    if (Status set = SetFromText(*field, text, config); !set) {
      return std::move(set).error().WithContext(fmt::format("command line: {}", key));
    }
  }
  return {};
}

// Variables that look like ours but name no field. Kubernetes sets DAVIT_*_SERVICE_* and
// DAVIT_*_PORT* for services called davit-*, so they are warnings and never errors.
void WarnAboutEnvironment(std::vector<std::string>& warnings) {
  std::set<std::string> known{"DAVIT_CONFIG"};
  for (const FieldInfo& field : Fields()) known.insert(EnvName(field.key));
  for (char** entry = environ; entry != nullptr && *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    const std::string name(text.substr(0, text.find('=')));
    if (!name.starts_with("DAVIT_") || known.contains(name)) continue;
    if (name.find("_SERVICE_") != std::string::npos || name.find("_PORT") != std::string::npos) {
      continue;
    }
    std::string key = name.substr(6);
    std::ranges::transform(key, key.begin(), [](char c) {
      return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    });
    const std::size_t split = key.find('_');
    if (split == std::string::npos) continue;
    key[split] = '.';
    // Others may use the prefix, too: only what names one of our sections is meant for us.
    const auto sections = Sections();
    if (std::ranges::find(sections, key.substr(0, split), &SectionInfo::name) == sections.end()) {
      continue;
    }
    const auto nearest = NearestKey(key);
    if (!nearest) continue;
    warnings.push_back(
        fmt::format("environment: {} is no setting; did you mean {}?", name, EnvName(*nearest)));
  }
}

std::string_view FieldPart(std::string_view key) {
  const std::size_t dot = key.find('.');
  return dot == std::string_view::npos ? key : key.substr(dot + 1);
}

Result<Loaded> Finish(Loaded loaded, const Sources& sources) {
  DAVIT_TRY(ApplyEnvironment(sources.env, loaded.config));
  DAVIT_TRY(ApplyOverrides(sources, loaded.config));
  DAVIT_TRY(Validate(loaded.config));
  WarnAboutEnvironment(loaded.warnings);
  return loaded;
}

Error Invalid(std::string message, std::string_view hint) {
  return Error(Code::kInvalidArgument, "configuration: " + std::move(message)).WithHint(hint);
}

// user:password@ of a URL.
std::string WithoutUserInfo(const std::string& url) {
  const std::size_t scheme = url.find("://");
  const std::size_t start = scheme == std::string::npos ? 0 : scheme + 3;
  const std::size_t at = url.find_last_of('@', url.find('/', start));
  if (at == std::string::npos || at < start) return url;
  return url.substr(0, start) + "<redacted>" + url.substr(at);
}

}  // namespace

GetEnv ProcessEnv() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr) return std::nullopt;
    return value;
  };
}

Config DefaultConfig(bool root, const GetEnv& env) {
  Config config;
  if (root) {
    config.node.state_dir = "/var/lib/davit";
    config.api.socket = "/run/davit/davitd.sock";
    return config;
  }
  const std::string home = EnvOr(env, "HOME", "/tmp");
  config.node.state_dir = EnvOr(env, "XDG_STATE_HOME", home + "/.local/state") + "/davit";
  config.api.socket =
      EnvOr(env, "XDG_RUNTIME_DIR", config.node.state_dir + "/run") + "/davit/davitd.sock";
  config.fuse.allow_other = false;
  return config;
}

std::string DefaultFile(bool root, const GetEnv& env) {
  if (const auto named = env("DAVIT_CONFIG"); named && !named->empty()) return *named;
  std::vector<std::string> candidates;
  if (!root) {
    candidates.push_back(EnvOr(env, "XDG_CONFIG_HOME", EnvOr(env, "HOME", "/tmp") + "/.config") +
                         "/davit/davit.toml");
  }
  candidates.emplace_back("/etc/davit/davit.toml");
  for (const std::string& path : candidates) {
    if (access(path.c_str(), F_OK) == 0) return path;
  }
  return {};
}

Result<Loaded> LoadText(std::string_view text, std::string_view format, const Sources& sources) {
  Loaded loaded{
      .config = DefaultConfig(sources.root, sources.env), .file = sources.file, .warnings = {}};
  DAVIT_TRY(ApplyFile(text, format, sources.file.empty() ? "configuration" : sources.file,
                      loaded.config));
  return Finish(std::move(loaded), sources);
}

Result<Loaded> Load(const Sources& sources) {
  if (sources.file.empty()) {
    return Finish({.config = DefaultConfig(sources.root, sources.env), .file = {}, .warnings = {}},
                  sources);
  }
  const bool is_json = sources.file.ends_with(".json");
  if (!is_json && !sources.file.ends_with(".toml")) {
    return Error(Code::kInvalidArgument, fmt::format("{}: neither .toml nor .json", sources.file))
        .WithHint("the ending of the file's name says its format");
  }
  auto text = ReadFile(sources.file, kMaxFileBytes);
  if (!text) return std::move(text).error().WithContext("configuration");
  return LoadText(*text, is_json ? "json" : "toml", sources);
}

Status Validate(const Config& c) {
  if (c.cache.low_watermark > c.cache.high_watermark) {
    return Invalid("cache.low_watermark is above cache.high_watermark",
                   "for example 0.85 and 0.95");
  }
  if (c.cache.max_request_bytes > c.cache.max_buffer_bytes) {
    return Invalid("cache.max_request_bytes is above cache.max_buffer_bytes",
                   "one request has to fit into the buffer");
  }
  if (c.scheduler.backoff_min > c.scheduler.backoff_max) {
    return Invalid("scheduler.backoff_min is above scheduler.backoff_max", "");
  }
  if (c.scheduler.max_background_requests > c.scheduler.max_requests_per_host) {
    return Invalid("scheduler.max_background_requests is above scheduler.max_requests_per_host",
                   "demand reads need some of the requests for themselves");
  }
  if (c.fuse.threads > c.fuse.max_threads) {
    return Invalid("fuse.threads is above fuse.max_threads", "");
  }
  if (c.registry.client_cert_file.empty() != c.registry.client_key_file.empty()) {
    return Invalid("registry.client_cert_file and registry.client_key_file need each other", "");
  }
  if (c.node.state_dir.empty()) return Invalid("node.state_dir is empty", "name a directory");
  if (c.api.socket.empty()) return Invalid("api.socket is empty", "name a path");
  if (c.api.socket.size() > 107) {
    return Invalid(fmt::format("api.socket: {} is longer than the 107 bytes that a unix socket "
                               "may have",
                               c.api.socket),
                   "choose a shorter path");
  }
  return {};
}

std::string ToJson(const Config& config, int indent) {
  Config copy = config;
  copy.registry.proxy = WithoutUserInfo(copy.registry.proxy);
  nlohmann::ordered_json out;
  out["version"] = kConfigVersion;
  for (const FieldInfo& field : Fields()) {
    const std::size_t dot = field.key.find('.');
    auto& slot = out[std::string(field.key.substr(0, dot))][std::string(FieldPart(field.key))];
    const FieldRef ref = field.ref(copy);
    if (auto* const* flag = std::get_if<bool*>(&ref)) {
      slot = **flag;
    } else if (auto* const* number = std::get_if<std::int64_t*>(&ref)) {
      slot = **number;
    } else if (auto* const* real = std::get_if<double*>(&ref)) {
      slot = **real;
    } else if (auto* const* list = std::get_if<std::vector<std::string>*>(&ref)) {
      slot = **list;
    } else {
      slot = FormatValue(field, copy);
    }
  }
  return out.dump(indent, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::vector<std::string> Keys() {
  std::vector<std::string> out;
  for (const FieldInfo& field : Fields()) out.emplace_back(field.key);
  return out;
}

std::string EnvName(std::string_view key) {
  std::string out = "DAVIT_";
  for (char c : key) {
    if (c == '.') {
      out += '_';
    } else {
      out += c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    }
  }
  return out;
}

std::optional<std::string> NearestKey(std::string_view key) {
  if (key.size() > 128) return std::nullopt;
  std::size_t best = SIZE_MAX;
  std::string_view found;
  for (const FieldInfo& field : Fields()) {
    // The right name in a wrong section is near, too.
    const std::size_t distance = std::min(EditDistance(key, field.key),
                                          EditDistance(FieldPart(key), FieldPart(field.key)) + 1);
    if (distance < best) {
      best = distance;
      found = field.key;
    }
  }
  if (best > std::max<std::size_t>(2, key.size() / 3)) return std::nullopt;
  return std::string(found);
}

std::string CacheDirectory(const Config& config) {
  return config.cache.directory.empty() ? config.node.state_dir + "/cache" : config.cache.directory;
}

}  // namespace davit::config
