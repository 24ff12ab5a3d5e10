#pragma once
// Bodies of davitd's HTTP API (docs/openapi.yaml), shared by the daemon and its clients.

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "common/base/secret.h"

namespace davit::daemon::api {

/// When a mount call returns.
enum class Ready { kMounted, kPrefetched, kComplete };
Result<Ready> ParseReady(std::string_view text);  // "mounted", "prefetched", "complete"
std::string_view ReadyName(Ready ready);

/// POST /api/v1/mounts
struct MountRequest {
  std::string id;           // 1..128 of [A-Za-z0-9._-]; the caller's name for the mount
  std::string source;       // image reference or oci: layout
  std::string mountpoint;   // absolute, an existing directory
  std::string platform;     // empty: the host's
  Ready ready = Ready::kMounted;
  bool fill = true;         // fetch the rest in the background
  bool plain_http = false;
  /// Docker config.json text for this image; kept in memory only, never given back.
  Secret registry_auth;
  static Result<MountRequest> FromJson(std::string_view text);
  std::string ToJson() const;  // with the secret: only for sending
};

struct MountInfo {
  std::string id, source, mountpoint, data_path;  // data_path: "fuse"
  std::string manifest_digest, platform, state;   // state: mounting, mounted, failed
  std::string error;
  std::uint64_t bytes_total = 0, bytes_ready = 0;
  bool complete = false;
  std::int64_t mounted_at_unix = 0;
  std::uint64_t mount_ms = 0;  // time that mounting took
};

struct DaemonInfo {
  std::string version, state;  // state: starting, running, draining
  int pid = 0;
  std::int64_t started_at_unix = 0;
  std::uint64_t mounts = 0;
};

struct Event {
  std::uint64_t sequence = 0;
  std::int64_t unix_ms = 0;
  std::string kind, mount, message;  // kind: mounted, unmounted, complete, error, …
};

/// {"code": "<CodeName>", "message": "..."}
struct ErrorBody {
  std::string code, message;
};

std::string ToJson(const MountInfo&);
std::string ToJson(const std::vector<MountInfo>&);
std::string ToJson(const DaemonInfo&);
std::string ToJson(const std::vector<Event>&);
std::string ToJson(const Error&);
Result<MountInfo> MountInfoFromJson(std::string_view text);
Result<std::vector<MountInfo>> MountListFromJson(std::string_view text);
Result<DaemonInfo> DaemonInfoFromJson(std::string_view text);
/// The Error a reply stands for; the code from the body if it is known, else from the status.
Error ErrorFromReply(int status, std::string_view body);
int HttpStatusOf(Code code);

}  // namespace davit::daemon::api
