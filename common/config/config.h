#pragma once
// One configuration for all binaries of davit. Every field is described once, in fields.cc; that
// table drives parsing, environment overrides, validation, the dump and docs/configuration.md.
//
// Precedence: built-in defaults < configuration file < environment (DAVIT_*) < command line.

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/result.h"

namespace davit {

/// The version of the file format that this build reads.
inline constexpr std::int64_t kConfigVersion = 1;

/// Plain values. Defaults that depend on the user (paths) are set by DefaultConfig().
struct Config {
  std::int64_t version = kConfigVersion;

  struct Node {
    std::string id;         // empty: the host name
    std::string state_dir;  // everything that must survive a restart
    std::string on_stop = "unmount";
    std::int64_t mount_threads = 16;
    std::chrono::milliseconds mount_timeout{120'000};
    std::int64_t keep_images = 64;
  } node;

  struct Api {
    std::string socket;
    std::int64_t threads = 32;
    std::string metrics_address;  // empty: metrics on the socket only
    std::int64_t events = 1024;
  } api;

  struct Registry {
    std::string docker_config;  // empty: $DOCKER_CONFIG or ~/.docker/config.json
    std::vector<std::string> credential_helpers;
    std::vector<std::string> plain_http_hosts;
    std::string hosts_dir;
    std::vector<std::string> ca_files;
    std::string client_cert_file, client_key_file;
    bool skip_verify = false;
    std::string proxy;
    std::chrono::milliseconds connect_timeout{5'000};
    std::chrono::milliseconds stall_timeout{20'000};
    std::int64_t retries = 4;
  } registry;

  struct Cache {
    std::string directory;           // empty: <node.state_dir>/cache
    std::uint64_t budget_bytes = 0;  // 0: half of the file system
    double high_watermark = 0.95, low_watermark = 0.85;
    std::uint64_t reserve_free_bytes = 1ULL << 30;
    std::int64_t fetch_threads = 12, decode_threads = 0;
    std::uint64_t max_buffer_bytes = 24ULL << 20;
    std::uint64_t max_request_bytes = 8ULL << 20;
    std::uint64_t merge_gap_bytes = 64ULL << 10;
    std::chrono::milliseconds flush_interval{1'000};
    bool verify_on_start = false;
    bool fill = true;
  } cache;

  struct Scheduler {
    std::int64_t max_requests_per_host = 12, max_background_requests = 3;
    std::uint64_t background_bytes_per_second = 0;
    std::chrono::milliseconds demand_patience{60'000}, background_patience{600'000};
    std::chrono::milliseconds backoff_min{100}, backoff_max{5'000};
    std::int64_t breaker_failures = 5;
  } scheduler;

  struct Fuse {
    std::int64_t threads = 4, max_threads = 64;
    bool allow_other = true;
    bool default_permissions = true;
    std::uint64_t read_ahead_bytes = 1ULL << 20;
    std::chrono::milliseconds hung_io_after{20'000};
  } fuse;

  struct Log {
    std::string level = "info";
    std::string format = "text";
    std::string file;
    std::uint64_t rotate_bytes = 64ULL << 20;
    std::int64_t keep_files = 5;
  } log;

  struct Csi {
    std::string endpoint = "unix:///var/lib/kubelet/plugins/csi.davit.dev/csi.sock";
    std::string driver_name = "csi.davit.dev";
    std::int64_t max_volumes = 0;
    bool embedded_daemon = true;
  } csi;
};

namespace config {

/// Looks a variable of the environment up; nothing when it is not set.
using GetEnv = std::function<std::optional<std::string>(const std::string&)>;
/// The process's environment.
GetEnv ProcessEnv();

/// Root: /var/lib/davit and /run/davit; others: their XDG directories.
Config DefaultConfig(bool root, const GetEnv& env);

/// Where values come from, lowest precedence first.
struct Sources {
  std::string file;  // .toml or .json; empty: none
  GetEnv env = ProcessEnv();
  /// "section.field" and its text, as given on the command line; the last one wins.
  std::vector<std::pair<std::string, std::string>> overrides;
  bool root = true;  // whose defaults
};

struct Loaded {
  Config config;
  std::string file;                   // that was read; empty: none
  std::vector<std::string> warnings;  // for the log: nothing that stops the start
};

/// Merges the sources and validates the result. kInvalidArgument names source, key and reason, and
/// for an unknown key the nearest known one.
Result<Loaded> Load(const Sources& sources);
/// The file that is used when none is named: $DAVIT_CONFIG, else the user's or the system's
/// davit.toml if there is one; empty when there is none.
std::string DefaultFile(bool root, const GetEnv& env);
/// The same for text; `format` is "toml" or "json".
Result<Loaded> LoadText(std::string_view text, std::string_view format, const Sources& sources);

/// Rules that concern several fields.
Status Validate(const Config& config);

/// The effective configuration as JSON; a password inside a proxy URL is left out.
std::string ToJson(const Config& config, int indent = 2);
/// The text of docs/configuration.md.
std::string ReferenceMarkdown();
/// Every key ("section.field") in the order of the reference.
std::vector<std::string> Keys();
/// The variable that overrides a key: "cache.budget_bytes" is DAVIT_CACHE_BUDGET_BYTES.
std::string EnvName(std::string_view key);
/// The most similar key, if one is similar at all.
std::optional<std::string> NearestKey(std::string_view key);

/// Directory of the cache: cache.directory, else <node.state_dir>/cache.
std::string CacheDirectory(const Config& config);

}  // namespace config
}  // namespace davit
