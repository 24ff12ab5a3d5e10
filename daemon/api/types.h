#pragma once
// Bodies of davitd's HTTP API (docs/openapi.yaml), shared by the daemon and its clients.

#include <cstdint>
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
  std::string id;          // 1..128 of [A-Za-z0-9._-]; the caller's name for the mount
  std::string source;      // image reference or oci: layout
  std::string mountpoint;  // absolute, an existing directory
  std::string platform;    // empty: the host's
  Ready ready = Ready::kMounted;
  bool fill = true;  // fetch the rest in the background
  bool plain_http = false;
  /// The volume that shows the mount, for log lines; at most 256 bytes.
  std::string volume;
  /// Docker config.json text for this image; kept in memory only, never given back.
  Secret registry_auth;
  /// Checks the fields' forms too; an unknown member is refused.
  static Result<MountRequest> FromJson(std::string_view text);
  std::string ToJson() const;  // with the secret: only for sending
  Status Validate() const;
};

/// kInvalidArgument unless it is 1..128 of [A-Za-z0-9._-].
Status CheckMountId(std::string_view id);

struct MountInfo {
  std::string id, source, mountpoint, data_path;  // data_path: "fuse"
  std::string manifest_digest, platform, state;   // state: mounting, mounted, failed
  std::string volume;                             // of the request; may be empty
  /// Why it failed. Else why the last read failed, until reads work again. Else why fetching ahead
  /// does not come on (a registry that is away, damage, no room), also while somebody waits for
  /// `prefetched` or `complete`, until anything comes.
  std::string error;
  std::string error_code;          // CodeName of that
  std::int64_t error_at_unix = 0;  // of a failed read only
  std::uint64_t bytes_total = 0, bytes_ready = 0;
  bool complete = false;
  std::int64_t mounted_at_unix = 0;
  std::uint64_t mount_ms = 0;  // time that mounting took
  /// Since it was mounted. Reads of the kernel; what its page cache answers is not seen.
  std::uint64_t reads = 0, waited_reads = 0, read_bytes = 0, read_errors = 0;
};

struct DaemonInfo {
  std::string version, state;  // state: starting, running, draining
  int pid = 0;
  std::int64_t started_at_unix = 0;
  std::uint64_t mounts = 0;
  std::string log_level;
};

/// POST /api/v1/mounts/{id}/prefetch. No paths: everything.
struct PrefetchRequest {
  std::vector<std::string> paths;
  static Result<PrefetchRequest> FromJson(std::string_view text);
  std::string ToJson() const;
};

struct Event {
  std::uint64_t sequence = 0;
  std::int64_t unix_ms = 0;
  std::string kind, mount, message;  // kind: mounted, unmounted, complete, error, ...
};

/// A request of the kernel that is not answered yet.
struct InflightIo {
  std::string mount, operation;
  std::uint64_t inode = 0, offset = 0, size = 0, age_ms = 0;
  bool hung = false;  // older than fuse.hung_io_after
};

struct CacheBlob {
  std::string id;
  std::uint64_t bytes_total = 0, bytes_ready = 0;
  bool complete = false, in_use = false;
  std::int64_t last_use_unix = 0;
};

struct CacheInfo {
  std::string directory;
  std::uint64_t budget_bytes = 0, bytes_on_disk = 0;
  std::uint64_t hits = 0, misses = 0, fetched_bytes = 0, deduplicated_bytes = 0;
  std::uint64_t corrupt_chunks = 0, lost_chunks = 0, evicted_bytes = 0, write_errors = 0;
  std::vector<CacheBlob> blobs;
};

std::string ToJson(const MountInfo& info);
std::string ToJson(const std::vector<MountInfo>& list);
std::string ToJson(const DaemonInfo& info);
std::string ToJson(const std::vector<Event>& events);
std::string ToJson(const std::vector<InflightIo>& list);
std::string ToJson(const CacheInfo& info);
/// {"code": "<CodeName>", "message": "...", "request_id": "..."}; an empty id is left out.
std::string ToJson(const Error& error, std::string_view request_id = {});
Result<MountInfo> MountInfoFromJson(std::string_view text);
Result<std::vector<MountInfo>> MountListFromJson(std::string_view text);
Result<DaemonInfo> DaemonInfoFromJson(std::string_view text);
Result<std::vector<Event>> EventsFromJson(std::string_view text);
Result<CacheInfo> CacheInfoFromJson(std::string_view text);
/// The Error a reply stands for; the code from the body if it is known, else from the status.
Error ErrorFromReply(int status, std::string_view body);
/// The code with such a name, if there is one.
std::optional<Code> CodeFromName(std::string_view name);
int HttpStatusOf(Code code);

}  // namespace davit::daemon::api
