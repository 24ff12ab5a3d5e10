// Docker's config.json and .dockercfg as credential providers.

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "common/base/fd.h"
#include "common/base/sync.h"
#include "common/json/json.h"
#include "storage/registry/base64.h"
#include "storage/registry/credentials.h"

namespace davit::registry {
namespace {

using Json = nlohmann::json;

constexpr std::uint64_t kMaxConfig = 1ULL << 20;
constexpr std::string_view kDockerHub = "docker.io";
constexpr std::string_view kDockerHubKey = "https://index.docker.io/v1/";

/// A key of "auths": a host, perhaps with '*' labels, and perhaps a path of repositories.
struct Entry {
  std::string host;
  std::string path;
  Credential credential;
};

struct Config {
  std::vector<Entry> entries;
  std::map<std::string, std::string> helpers;  // host -> helper
  std::string store;                           // helper for every other host
};

std::string_view CanonicalHost(std::string_view host) {
  if (host == "index.docker.io" || host == "registry-1.docker.io") return kDockerHub;
  return host;
}

/// "https://host/v1/", "host:5000/team" and the like; the scheme and the version say nothing.
void SplitKey(std::string_view key, std::string& host, std::string& path) {
  for (const std::string_view scheme : {"https://", "http://"}) {
    if (key.starts_with(scheme)) key.remove_prefix(scheme.size());
  }
  while (key.ends_with('/')) key.remove_suffix(1);
  for (const std::string_view version : {"/v1", "/v2"}) {
    if (key.ends_with(version)) key.remove_suffix(version.size());
  }
  const std::size_t slash = key.find('/');
  host = std::string(CanonicalHost(key.substr(0, slash)));
  if (slash != std::string_view::npos) path = std::string(key.substr(slash + 1));
}

/// One label; '*' stands for any characters inside it.
bool LabelMatches(std::string_view pattern, std::string_view label) {
  const std::size_t star = pattern.find('*');
  if (star == std::string_view::npos) return pattern == label;
  if (!label.starts_with(pattern.substr(0, star))) return false;
  const std::string_view rest = pattern.substr(star + 1);
  for (std::size_t i = star; i <= label.size(); ++i) {
    if (LabelMatches(rest, label.substr(i))) return true;
  }
  return false;
}

std::string_view TakeLabel(std::string_view& text) {
  const std::size_t dot = text.find('.');
  const std::string_view label = text.substr(0, dot);
  text = dot == std::string_view::npos ? std::string_view() : text.substr(dot + 1);
  return label;
}

bool HostMatches(std::string_view pattern, std::string_view host) {
  if (std::count(pattern.begin(), pattern.end(), '*') > 4) return false;
  if (pattern.find('*') == std::string_view::npos) return pattern == host;
  if (std::count(pattern.begin(), pattern.end(), '.') != std::count(host.begin(), host.end(), '.'))
    return false;
  while (!pattern.empty() || !host.empty()) {
    if (!LabelMatches(TakeLabel(pattern), TakeLabel(host))) return false;
  }
  return true;
}

bool PathMatches(std::string_view prefix, std::string_view repository) {
  return prefix.empty() || repository == prefix ||
         (repository.starts_with(prefix) && repository[prefix.size()] == '/');
}

Result<Credential> ParseAuth(const Json& object) {
  Credential out;
  DAVIT_TRY_ASSIGN(std::optional<std::string> username, json::GetString(object, "username"));
  DAVIT_TRY_ASSIGN(std::optional<std::string> password, json::GetString(object, "password"));
  DAVIT_TRY_ASSIGN(std::optional<std::string> identity, json::GetString(object, "identitytoken"));
  DAVIT_TRY_ASSIGN(const std::optional<std::string> auth, json::GetString(object, "auth"));
  out.username = username.value_or("");
  out.password = Secret(password.value_or(""));
  out.identity_token = Secret(identity.value_or(""));
  if (!auth || auth->empty()) return out;
  Result<std::string> decoded = Base64Decode(*auth);
  if (!decoded) return std::move(decoded).error().WithContext("'auth'");
  // Docker pads the pair with zero bytes on some systems.
  while (!decoded->empty() && decoded->back() == '\0') decoded->pop_back();
  const std::size_t colon = decoded->find(':');
  if (colon == std::string::npos)
    return Error(Code::kInvalidArgument, "'auth' does not decode to user:password");
  out.username = decoded->substr(0, colon);
  out.password = Secret(decoded->substr(colon + 1));
  return out;
}

Status ParseAuths(const Json& auths, Config& out) {
  for (const auto& [key, value] : auths.items()) {
    if (!value.is_object())
      return Error(Code::kInvalidArgument, fmt::format("the entry of '{}' is no object", key));
    Entry entry;
    SplitKey(key, entry.host, entry.path);
    Result<Credential> credential = ParseAuth(value);
    if (!credential)
      return std::move(credential).error().WithContext(fmt::format("the entry of '{}'", key));
    entry.credential = *std::move(credential);
    // Docker leaves empty entries beside a helper.
    if (!entry.credential.anonymous()) out.entries.push_back(std::move(entry));
  }
  // The most specific key wins: longest path, then hosts without wildcards.
  std::stable_sort(out.entries.begin(), out.entries.end(), [](const Entry& a, const Entry& b) {
    if (a.path.size() != b.path.size()) return a.path.size() > b.path.size();
    return a.host.find('*') == std::string::npos && b.host.find('*') != std::string::npos;
  });
  return {};
}

Status ParseHelpers(const Json& helpers, Config& out) {
  for (const auto& [host, name] : helpers.items()) {
    if (!name.is_string())
      return Error(Code::kInvalidArgument, fmt::format("the helper of '{}' is no string", host));
    std::string key, path;
    SplitKey(host, key, path);
    out.helpers[key] = name.get<std::string>();
  }
  return {};
}

Result<Config> ParseConfig(std::string_view text, std::string_view what) {
  Config out;
  DAVIT_TRY_ASSIGN(const Json root, json::Parse(text, what, kMaxConfig));
  if (!root.is_object())
    return Error(Code::kInvalidArgument, fmt::format("{} is no JSON object", what));
  const bool modern = root.contains("auths") || root.contains("credHelpers") ||
                      root.contains("credsStore") || root.contains("HttpHeaders");
  const Json* auths = &root;  // .dockercfg: the hosts stand at the top
  if (modern) {
    DAVIT_TRY_ASSIGN(auths, json::GetObject(root, "auths"));
    DAVIT_TRY_ASSIGN(const std::optional<std::string> store, json::GetString(root, "credsStore"));
    out.store = store.value_or("");
    DAVIT_TRY_ASSIGN(const Json* helpers, json::GetObject(root, "credHelpers"));
    if (helpers != nullptr) DAVIT_TRY(ParseHelpers(*helpers, out));
  }
  if (auths != nullptr) DAVIT_TRY(ParseAuths(*auths, out));
  return out;
}

Result<Credential> Lookup(const Context& ctx, const Config& config, std::string_view asked_host,
                          const std::string& repository) {
  const std::string host(CanonicalHost(asked_host));
  const auto helper = config.helpers.find(host);
  const std::string& name = helper != config.helpers.end() ? helper->second : config.store;
  if (!name.empty()) {
    const std::string server(host == kDockerHub ? kDockerHubKey : host);
    DAVIT_TRY_ASSIGN(Credential credential, CredentialHelper(name)->Get(ctx, server, repository));
    if (!credential.anonymous()) return credential;
  }
  for (const Entry& entry : config.entries) {
    if (HostMatches(entry.host, host) && PathMatches(entry.path, repository))
      return entry.credential;
  }
  return Credential();
}

class ConfigText final : public CredentialProvider {
 public:
  explicit ConfigText(Config config) : config_(std::move(config)) {}
  Result<Credential> Get(const Context& ctx, const std::string& host,
                         const std::string& repository) override {
    return Lookup(ctx, config_, host, repository);
  }

 private:
  const Config config_;
};

/// What stat(2) says of a file; another value means that it may have changed.
struct Version {
  dev_t device = 0;
  ino_t inode = 0;
  off_t size = -1;
  timespec mtime{};
  bool operator==(const Version& other) const {
    return device == other.device && inode == other.inode && size == other.size &&
           mtime.tv_sec == other.mtime.tv_sec && mtime.tv_nsec == other.mtime.tv_nsec;
  }
};

std::string DefaultPath() {
  if (const char* dir = std::getenv("DOCKER_CONFIG"); dir != nullptr && *dir != '\0')
    return std::string(dir) + "/config.json";
  if (const char* home = std::getenv("HOME"); home != nullptr && *home != '\0')
    return std::string(home) + "/.docker/config.json";
  return {};
}

class ConfigFile final : public CredentialProvider {
 public:
  explicit ConfigFile(std::string path) : path_(std::move(path)) {}

  Result<Credential> Get(const Context& ctx, const std::string& host,
                         const std::string& repository) override {
    DAVIT_TRY_ASSIGN(const std::shared_ptr<const Config> config, Load());
    // Helpers run without the lock: they may take seconds.
    return Lookup(ctx, *config, host, repository);
  }

 private:
  Result<std::shared_ptr<const Config>> Load() DAVIT_EXCLUDES(mutex_) {
    const std::string path = path_.empty() ? DefaultPath() : path_;
    struct stat st{};
    if (path.empty() || stat(path.c_str(), &st) != 0) {
      if (path.empty() || errno == ENOENT || errno == ENOTDIR)
        return std::make_shared<const Config>();
      return Error::FromErrno(errno, "read credentials from " + path);
    }
    const Version version{st.st_dev, st.st_ino, st.st_size, st.st_mtim};
    {
      MutexLock lock(mutex_);
      if (config_ != nullptr && version == version_) return config_;
    }
    DAVIT_TRY_ASSIGN(const std::string text, ReadFile(path, kMaxConfig));
    Result<Config> parsed = ParseConfig(text, path);
    if (!parsed) {
      return std::move(parsed)
          .error()
          .WithContext("credentials in " + path)
          .WithHint("correct the file, or log in again with the tool that wrote it");
    }
    MutexLock lock(mutex_);
    config_ = std::make_shared<const Config>(*std::move(parsed));
    version_ = version;
    return config_;
  }

  const std::string path_;
  Mutex mutex_;
  std::shared_ptr<const Config> config_ DAVIT_GUARDED_BY(mutex_);
  Version version_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace

std::unique_ptr<CredentialProvider> DockerConfigFile(std::string path) {
  return std::make_unique<ConfigFile>(std::move(path));
}

Result<std::unique_ptr<CredentialProvider>> DockerConfigText(const Secret& json) {
  DAVIT_TRY_ASSIGN(Config config, ParseConfig(json.Reveal(), "the registry secret"));
  return std::unique_ptr<CredentialProvider>(std::make_unique<ConfigText>(std::move(config)));
}

}  // namespace davit::registry
