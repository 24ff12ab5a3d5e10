// What the daemon answers.

#include <fmt/format.h>

#include <array>
#include <nlohmann/json.hpp>

#include "common/json/json.h"
#include "daemon/api/types.h"

namespace davit::daemon::api {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::size_t kMaxReply = 64U << 20;

std::string Text(const Json& value) {
  return value.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Json Value(const MountInfo& info) {
  Json out{{"id", info.id},
           {"source", info.source},
           {"mountpoint", info.mountpoint},
           {"state", info.state},
           {"data_path", info.data_path},
           {"manifest_digest", info.manifest_digest},
           {"platform", info.platform},
           {"bytes_total", info.bytes_total},
           {"bytes_ready", info.bytes_ready},
           {"complete", info.complete},
           {"mounted_at_unix", info.mounted_at_unix},
           {"mount_ms", info.mount_ms},
           {"reads", info.reads},
           {"waited_reads", info.waited_reads},
           {"read_bytes", info.read_bytes},
           {"read_errors", info.read_errors}};
  if (!info.volume.empty()) out["volume"] = info.volume;
  if (!info.error.empty()) {
    out["error"] = info.error;
    out["error_code"] = info.error_code;
    if (info.error_at_unix != 0) out["error_at_unix"] = info.error_at_unix;
  }
  return out;
}

// Members of a reply; a wrong or missing one reads as empty: a newer daemon may say it otherwise.
std::string TextOf(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_string() ? it->get<std::string>() : std::string();
}
std::uint64_t UintOf(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_unsigned() ? it->get<std::uint64_t>() : 0;
}
std::int64_t IntOf(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_number_integer() ? it->get<std::int64_t>() : 0;
}
bool BoolOf(const nlohmann::json& object, const char* key) {
  const auto it = object.find(key);
  return it != object.end() && it->is_boolean() && it->get<bool>();
}

MountInfo MountOf(const nlohmann::json& object) {
  MountInfo info;
  info.id = TextOf(object, "id");
  info.source = TextOf(object, "source");
  info.mountpoint = TextOf(object, "mountpoint");
  info.state = TextOf(object, "state");
  info.data_path = TextOf(object, "data_path");
  info.manifest_digest = TextOf(object, "manifest_digest");
  info.platform = TextOf(object, "platform");
  info.volume = TextOf(object, "volume");
  info.error = TextOf(object, "error");
  info.error_code = TextOf(object, "error_code");
  info.bytes_total = UintOf(object, "bytes_total");
  info.bytes_ready = UintOf(object, "bytes_ready");
  info.complete = BoolOf(object, "complete");
  info.mounted_at_unix = IntOf(object, "mounted_at_unix");
  info.mount_ms = UintOf(object, "mount_ms");
  info.error_at_unix = IntOf(object, "error_at_unix");
  info.reads = UintOf(object, "reads");
  info.waited_reads = UintOf(object, "waited_reads");
  info.read_bytes = UintOf(object, "read_bytes");
  info.read_errors = UintOf(object, "read_errors");
  return info;
}

Result<nlohmann::json> ParseReply(std::string_view text, bool array) {
  DAVIT_TRY_ASSIGN(nlohmann::json body, json::Parse(text, "the daemon's reply", kMaxReply));
  if (array ? !body.is_array() : !body.is_object()) {
    return Error(Code::kInternal, "the daemon's reply has an unexpected form");
  }
  return body;
}

constexpr std::array kCodes{
    Code::kInvalidArgument, Code::kNotFound,    Code::kAlreadyExists,    Code::kPermissionDenied,
    Code::kUnauthenticated, Code::kUnavailable, Code::kDeadlineExceeded, Code::kResourceExhausted,
    Code::kCancelled,       Code::kDataLoss,    Code::kUnsupported,      Code::kFailedPrecondition,
    Code::kAborted,         Code::kInternal};

Code CodeOfStatus(int status) {
  for (const Code code : kCodes) {
    if (HttpStatusOf(code) == status) return code;
  }
  return status >= 500 ? Code::kUnavailable : Code::kInvalidArgument;
}

}  // namespace

std::string ToJson(const MountInfo& info) { return Text(Value(info)); }

std::string ToJson(const std::vector<MountInfo>& list) {
  Json out = Json::array();
  for (const MountInfo& info : list) out.push_back(Value(info));
  return Text(out);
}

std::string ToJson(const DaemonInfo& info) {
  return Text({{"version", info.version},
               {"state", info.state},
               {"pid", info.pid},
               {"started_at_unix", info.started_at_unix},
               {"mounts", info.mounts},
               {"log_level", info.log_level}});
}

std::string ToJson(const std::vector<Event>& events) {
  Json out = Json::array();
  for (const Event& event : events) {
    out.push_back({{"sequence", event.sequence},
                   {"unix_ms", event.unix_ms},
                   {"kind", event.kind},
                   {"mount", event.mount},
                   {"message", event.message}});
  }
  return Text(out);
}

std::string ToJson(const std::vector<InflightIo>& list) {
  Json out = Json::array();
  for (const InflightIo& io : list) {
    out.push_back({{"mount", io.mount},
                   {"operation", io.operation},
                   {"inode", io.inode},
                   {"offset", io.offset},
                   {"size", io.size},
                   {"age_ms", io.age_ms},
                   {"hung", io.hung}});
  }
  return Text(out);
}

std::string ToJson(const CacheInfo& info) {
  Json out{{"directory", info.directory},
           {"budget_bytes", info.budget_bytes},
           {"bytes_on_disk", info.bytes_on_disk},
           {"hits", info.hits},
           {"misses", info.misses},
           {"fetched_bytes", info.fetched_bytes},
           {"deduplicated_bytes", info.deduplicated_bytes},
           {"corrupt_chunks", info.corrupt_chunks},
           {"lost_chunks", info.lost_chunks},
           {"evicted_bytes", info.evicted_bytes},
           {"write_errors", info.write_errors},
           {"blobs", Json::array()}};
  for (const CacheBlob& blob : info.blobs) {
    out["blobs"].push_back({{"id", blob.id},
                            {"bytes_total", blob.bytes_total},
                            {"bytes_ready", blob.bytes_ready},
                            {"complete", blob.complete},
                            {"in_use", blob.in_use},
                            {"last_use_unix", blob.last_use_unix}});
  }
  return Text(out);
}

std::string ToJson(const Error& error, std::string_view request_id) {
  Json out{{"code", CodeName(error.code())}, {"message", error.ToString()}};
  if (!request_id.empty()) out["request_id"] = request_id;
  return Text(out);
}

Result<MountInfo> MountInfoFromJson(std::string_view text) {
  DAVIT_TRY_ASSIGN(const nlohmann::json body, ParseReply(text, false));
  return MountOf(body);
}

Result<std::vector<MountInfo>> MountListFromJson(std::string_view text) {
  DAVIT_TRY_ASSIGN(const nlohmann::json body, ParseReply(text, true));
  std::vector<MountInfo> out;
  for (const nlohmann::json& item : body) {
    if (item.is_object()) out.push_back(MountOf(item));
  }
  return out;
}

Result<DaemonInfo> DaemonInfoFromJson(std::string_view text) {
  DAVIT_TRY_ASSIGN(const nlohmann::json body, ParseReply(text, false));
  DaemonInfo info;
  info.version = TextOf(body, "version");
  info.state = TextOf(body, "state");
  info.pid = static_cast<int>(IntOf(body, "pid"));
  info.started_at_unix = IntOf(body, "started_at_unix");
  info.mounts = UintOf(body, "mounts");
  info.log_level = TextOf(body, "log_level");
  return info;
}

Result<std::vector<Event>> EventsFromJson(std::string_view text) {
  DAVIT_TRY_ASSIGN(const nlohmann::json body, ParseReply(text, true));
  std::vector<Event> out;
  for (const nlohmann::json& item : body) {
    if (!item.is_object()) continue;
    out.push_back({.sequence = UintOf(item, "sequence"),
                   .unix_ms = IntOf(item, "unix_ms"),
                   .kind = TextOf(item, "kind"),
                   .mount = TextOf(item, "mount"),
                   .message = TextOf(item, "message")});
  }
  return out;
}

Result<CacheInfo> CacheInfoFromJson(std::string_view text) {
  DAVIT_TRY_ASSIGN(const nlohmann::json body, ParseReply(text, false));
  CacheInfo info;
  info.directory = TextOf(body, "directory");
  info.budget_bytes = UintOf(body, "budget_bytes");
  info.bytes_on_disk = UintOf(body, "bytes_on_disk");
  info.hits = UintOf(body, "hits");
  info.misses = UintOf(body, "misses");
  info.fetched_bytes = UintOf(body, "fetched_bytes");
  info.deduplicated_bytes = UintOf(body, "deduplicated_bytes");
  info.corrupt_chunks = UintOf(body, "corrupt_chunks");
  info.lost_chunks = UintOf(body, "lost_chunks");
  info.evicted_bytes = UintOf(body, "evicted_bytes");
  info.write_errors = UintOf(body, "write_errors");
  DAVIT_TRY_ASSIGN(const nlohmann::json* blobs, json::GetArray(body, "blobs"));
  if (blobs == nullptr) return info;
  for (const nlohmann::json& item : *blobs) {
    if (!item.is_object()) continue;
    info.blobs.push_back({.id = TextOf(item, "id"),
                          .bytes_total = UintOf(item, "bytes_total"),
                          .bytes_ready = UintOf(item, "bytes_ready"),
                          .complete = BoolOf(item, "complete"),
                          .in_use = BoolOf(item, "in_use"),
                          .last_use_unix = IntOf(item, "last_use_unix")});
  }
  return info;
}

std::optional<Code> CodeFromName(std::string_view name) {
  for (const Code code : kCodes) {
    if (CodeName(code) == name) return code;
  }
  return std::nullopt;
}

Error ErrorFromReply(int status, std::string_view body) {
  const auto parsed = json::Parse(body, "error", 1U << 20);
  if (parsed.ok() && parsed->is_object()) {
    const auto code = CodeFromName(TextOf(*parsed, "code"));
    const std::string message = TextOf(*parsed, "message");
    if (!message.empty()) return Error(code.value_or(CodeOfStatus(status)), message);
  }
  return Error(CodeOfStatus(status), fmt::format("the daemon answered with status {}", status));
}

int HttpStatusOf(Code code) {
  switch (code) {
    case Code::kInvalidArgument:
      return 400;
    case Code::kUnauthenticated:
      return 401;
    case Code::kPermissionDenied:
      return 403;
    case Code::kNotFound:
      return 404;
    case Code::kAlreadyExists:
      return 409;
    case Code::kFailedPrecondition:
      return 412;
    case Code::kAborted:
      return 423;
    case Code::kCancelled:
      return 499;
    case Code::kUnsupported:
      return 501;
    case Code::kDataLoss:
      return 502;
    case Code::kUnavailable:
      return 503;
    case Code::kDeadlineExceeded:
      return 504;
    case Code::kResourceExhausted:
      return 507;
    case Code::kInternal:
      return 500;
  }
  return 500;
}

}  // namespace davit::daemon::api
