#include "storage/registry/hosts.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>

#include "common/base/fd.h"
#include "common/toml/parse_toml.h"
#include "storage/registry/errors.h"

namespace davit::registry {
namespace {

constexpr std::uint64_t kMaxFile = 1ULL << 20;
constexpr std::size_t kMaxMirrors = 64;

std::string ApiHost(const std::string& host) {
  return host == "docker.io" ? "registry-1.docker.io" : host;
}

Error Bad(std::string message) {
  return Error(Code::kInvalidArgument, std::move(message))
      .WithHint("see containerd's documentation of hosts.toml");
}

std::string Rooted(const std::string& dir, const std::string& file) {
  return file.starts_with('/') ? file : dir + "/" + file;
}

/// A string, or a list of strings.
Result<std::vector<std::string>> Strings(const toml::node& node, std::string_view key) {
  std::vector<std::string> out;
  if (const auto one = node.value<std::string>()) {
    out.push_back(*one);
    return out;
  }
  const toml::array* list = node.as_array();
  if (list == nullptr) return Bad(fmt::format("'{}' must be a string or a list of strings", key));
  for (const toml::node& item : *list) {
    const auto text = item.value<std::string>();
    if (!text) return Bad(fmt::format("'{}' holds something that is no string", key));
    out.push_back(*text);
  }
  return out;
}

/// "cert.pem", ["cert.pem", …] or [["cert.pem", "key.pem"], …]. One pair can be shown to a
/// server; it is the first.
Status ParseClient(const toml::node& node, const std::string& dir, http::TlsOptions& tls) {
  const toml::array* list = node.as_array();
  const toml::array* pair = list != nullptr && !list->empty() ? (*list)[0].as_array() : nullptr;
  DAVIT_TRY_ASSIGN(
      const std::vector<std::string> files,
      Strings(pair != nullptr ? static_cast<const toml::node&>(*pair) : node, "client"));
  if (files.empty()) return {};
  if (pair != nullptr && files.size() > 2)
    return Bad("'client' holds a pair of more than two files");
  tls.client_cert_file = Rooted(dir, files[0]);
  if (pair != nullptr && files.size() == 2 && !files[1].empty())
    tls.client_key_file = Rooted(dir, files[1]);
  return {};
}

Status ParseCapabilities(const toml::node& node, Endpoint& out) {
  DAVIT_TRY_ASSIGN(const std::vector<std::string> names, Strings(node, "capabilities"));
  if (names.empty()) return {};  // as containerd: nothing said, everything allowed
  out.can_pull = out.can_resolve = false;
  for (const std::string& name : names) {
    if (name == "pull") {
      out.can_pull = true;
    } else if (name == "resolve") {
      out.can_resolve = true;
    } else if (name != "push" && name != "referrers") {
      return Bad(fmt::format("'capabilities' holds '{}'; known are pull, resolve, push", name));
    }
  }
  return {};
}

bool ValidHeader(std::string_view name, std::string_view value) {
  const auto control = [](char c) { return static_cast<unsigned char>(c) < 0x20 || c == 0x7f; };
  if (name.empty() || name.find_first_of(": ") != std::string_view::npos) return false;
  return std::none_of(name.begin(), name.end(), control) &&
         std::none_of(value.begin(), value.end(), [&](char c) { return control(c) && c != '\t'; });
}

Status ParseHeaders(const toml::node& node, Endpoint& out) {
  const toml::table* table = node.as_table();
  if (table == nullptr) return Bad("'header' must be a table");
  for (const auto& [key, value] : *table) {
    const std::string name(key.str());
    DAVIT_TRY_ASSIGN(const std::vector<std::string> values, Strings(value, "header"));
    for (const std::string& one : values) {
      if (!ValidHeader(name, one))
        return Bad("'header' holds a name or value with control characters");
      out.headers.Add(name, one);
    }
  }
  return {};
}

Result<bool> Flag(const toml::table& table, std::string_view key) {
  const toml::node* node = table.get(key);
  if (node == nullptr) return false;
  const auto value = node->value_exact<bool>();
  if (!value) return Bad(fmt::format("'{}' must be true or false", key));
  return *value;
}

/// Everything that may stand beside a URL.
Result<bool> ParseFields(const toml::table& table, const std::string& dir, Endpoint& out) {
  if (const toml::node* node = table.get("capabilities")) DAVIT_TRY(ParseCapabilities(*node, out));
  if (const toml::node* node = table.get("ca")) {
    DAVIT_TRY_ASSIGN(const std::vector<std::string> files, Strings(*node, "ca"));
    for (const std::string& file : files) out.tls.ca_files.push_back(Rooted(dir, file));
  }
  if (const toml::node* node = table.get("client")) DAVIT_TRY(ParseClient(*node, dir, out.tls));
  if (const toml::node* node = table.get("header")) DAVIT_TRY(ParseHeaders(*node, out));
  DAVIT_TRY_ASSIGN(const bool skip, Flag(table, "skip_verify"));
  out.tls.skip_verify = out.tls.skip_verify || skip;
  return Flag(table, "override_path");
}

/// The API's root below `text`, with "/v2" unless the path is to be taken as it is.
Result<http::Url> ApiRoot(std::string text, bool override_path) {
  if (text.find("://") == std::string::npos) text.insert(0, "https://");
  Result<http::Url> url = http::Url::Parse(text);
  if (!url.ok() || url->path.find('?') != std::string::npos)
    return Bad("a host must be an http or https URL without user information and query");
  while (url->path.ends_with('/')) url->path.pop_back();
  if (!override_path && !url->path.ends_with("/v2")) url->path += "/v2";
  return url;
}

std::string HostPort(const http::Url& url) {
  const std::string origin = url.Origin();
  return origin.substr(origin.find("://") + 3);
}

Result<Endpoint> ParseEndpoint(const std::string& text, const toml::table& table,
                               const std::string& dir, const std::string& host,
                               const HostDefaults& defaults) {
  Endpoint out;
  out.tls = defaults.tls;
  out.proxy = defaults.proxy;
  DAVIT_TRY_ASSIGN(const bool override_path, ParseFields(table, dir, out));
  DAVIT_TRY_ASSIGN(out.url, ApiRoot(text, override_path));
  const std::string where = HostPort(out.url);
  out.own_host = where == ApiHost(host);
  out.credential_host = out.own_host ? host : where;
  return out;
}

bool Exists(const std::string& path) {
  struct stat st{};
  return stat(path.c_str(), &st) == 0;
}

/// Docker's older form: *.crt to trust, *.cert with *.key to show.
Result<http::TlsOptions> CertificateFiles(const std::string& dir, http::TlsOptions tls) {
  DAVIT_TRY_ASSIGN(const std::vector<std::string> names, ListDirectory(dir));
  for (const std::string& name : names) {
    const std::string path = dir + "/" + name;
    if (name.ends_with(".crt")) {
      tls.ca_files.push_back(path);
    } else if (name.ends_with(".cert")) {
      const std::string key = path.substr(0, path.size() - 5) + ".key";
      if (!Exists(key)) return Bad(fmt::format("{} has no key beside it", path));
      tls.client_cert_file = path;
      tls.client_key_file = key;
    }
  }
  return tls;
}

/// Where the files may be, in the order to look.
std::vector<std::string> Candidates(const std::string& dirs, const std::string& host) {
  std::vector<std::string> out;
  std::string_view rest = dirs;
  while (!rest.empty()) {
    const std::size_t colon = rest.find(':');
    const std::string dir(rest.substr(0, colon));
    rest = colon == std::string_view::npos ? std::string_view() : rest.substr(colon + 1);
    if (dir.empty()) continue;
    for (const std::string& name : HostDirectories(host)) out.push_back(dir + "/" + name);
  }
  return out;
}

Result<std::vector<Endpoint>> LoadDirectory(const std::string& dir, const std::string& host,
                                            const HostDefaults& defaults) {
  const std::string file = dir + "/hosts.toml";
  Result<std::string> text = ReadFile(file, kMaxFile);
  if (text.ok()) {
    Result<std::vector<Endpoint>> out = ParseHostsToml(*text, dir, host, defaults);
    if (!out.ok()) return std::move(out).error().WithContext(file);
    return out;
  }
  if (text.error().code() != Code::kNotFound) return std::move(text).error();
  HostDefaults own = defaults;
  DAVIT_TRY_ASSIGN(own.tls, CertificateFiles(dir, defaults.tls));
  return std::vector<Endpoint>{DefaultEndpoint(host, own)};
}

}  // namespace

Endpoint DefaultEndpoint(const std::string& host, const HostDefaults& defaults) {
  Endpoint out;
  const std::string text = (defaults.plain_http ? "http://" : "https://") + ApiHost(host) + "/v2";
  // The host has been checked by the reference's parser; a default URL is better than a crash.
  out.url = http::Url::Parse(text).value_or(http::Url{"https", "invalid", 443, "/v2"});
  out.tls = defaults.tls;
  out.proxy = defaults.proxy;
  out.own_host = true;
  out.credential_host = host;
  return out;
}

std::vector<std::string> HostDirectories(const std::string& host) {
  std::vector<std::string> out;
  const std::size_t colon = host.rfind(':');
  if (colon != std::string::npos && colon > 0 && !host.ends_with(']'))
    out.push_back(host.substr(0, colon) + "_" + host.substr(colon + 1) + "_");
  out.push_back(host);
  out.emplace_back("_default");
  return out;
}

Result<std::vector<Endpoint>> ParseHostsToml(std::string_view text, const std::string& dir,
                                             const std::string& host,
                                             const HostDefaults& defaults) {
  const Result<toml::table> parsed = ParseToml(text);
  if (!parsed) return Bad(parsed.error().message());
  const toml::table& root = *parsed;
  std::vector<std::pair<std::uint64_t, Endpoint>> mirrors;
  if (const toml::node* node = root.get("host")) {
    const toml::table* hosts = node->as_table();
    if (hosts == nullptr) return Bad("'host' must be a table");
    if (hosts->size() > kMaxMirrors) return Bad(fmt::format("more than {} hosts", kMaxMirrors));
    for (const auto& [url, value] : *hosts) {
      const std::string name(url.str());
      const toml::table* table = value.as_table();
      if (table == nullptr)
        return Bad(fmt::format("the host '{}' must be a table", ShownUrl(name)));
      Result<Endpoint> one = ParseEndpoint(name, *table, dir, host, defaults);
      if (!one.ok()) return std::move(one).error().WithContext("host '" + ShownUrl(name) + "'");
      one->mirror = true;
      if (HostPort(one->url) != ApiHost(host)) one->ns = host;
      // Tables come sorted by name; their order in the file is what counts.
      mirrors.emplace_back(
          (std::uint64_t{url.source().begin.line} << 32) | url.source().begin.column,
          *std::move(one));
    }
  }
  std::stable_sort(mirrors.begin(), mirrors.end(),
                   [](const auto& a, const auto& b) { return a.first < b.first; });
  std::vector<Endpoint> out;
  out.reserve(mirrors.size() + 1);  // the server's own
  for (auto& [line, endpoint] : mirrors) out.push_back(std::move(endpoint));
  const toml::node* server = root.get("server");
  if (server == nullptr) {
    out.push_back(DefaultEndpoint(host, defaults));
    DAVIT_TRY(ParseFields(root, dir, out.back()));
    return out;
  }
  const auto server_text = server->value<std::string>();
  if (!server_text) return Bad("'server' must be a string");
  Result<Endpoint> one = ParseEndpoint(*server_text, root, dir, host, defaults);
  if (!one.ok()) return std::move(one).error().WithContext("'server'");
  one->can_pull = one->can_resolve = true;
  out.push_back(*std::move(one));
  return out;
}

Result<std::vector<Endpoint>> LoadEndpoints(const std::string& dirs, const std::string& host,
                                            const HostDefaults& defaults) {
  for (const std::string& path : Candidates(dirs, host)) {
    struct stat st{};
    if (stat(path.c_str(), &st) != 0 || !S_ISDIR(st.st_mode)) continue;
    return LoadDirectory(path, host, defaults);
  }
  return std::vector<Endpoint>{DefaultEndpoint(host, defaults)};
}

// The directory's own time tells of certificates that come and go.
std::string HostsVersion(const std::string& dirs, const std::string& host) {
  std::string out;
  const auto add = [&](const std::string& path) {
    struct stat st{};
    if (stat(path.c_str(), &st) != 0) {
      out += "-;";
      return false;
    }
    out += fmt::format("{} {} {} {}.{} {}.{};", st.st_dev, st.st_ino, st.st_size, st.st_mtim.tv_sec,
                       st.st_mtim.tv_nsec, st.st_ctim.tv_sec, st.st_ctim.tv_nsec);
    return S_ISDIR(st.st_mode);
  };
  for (const std::string& path : Candidates(dirs, host)) {
    if (!add(path)) continue;
    add(path + "/hosts.toml");
    break;
  }
  return out;
}

}  // namespace davit::registry
