#include "daemon/core/mount_store.h"

#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/json/json.h"

namespace davit::daemon {
namespace {

constexpr std::uint64_t kVersion = 1;
constexpr std::string_view kSuffix = ".json";

}  // namespace

std::string RecordToJson(const MountRecord& record) {
  const nlohmann::ordered_json out{{"version", kVersion},
                                   {"id", record.request.id},
                                   {"source", record.request.source},
                                   {"mountpoint", record.request.mountpoint},
                                   {"platform", record.request.platform},
                                   {"ready", api::ReadyName(record.request.ready)},
                                   {"fill", record.request.fill},
                                   {"plain_http", record.request.plain_http},
                                   {"volume", record.request.volume},
                                   {"manifest_digest", record.manifest_digest},
                                   {"chosen_platform", record.platform}};
  return out.dump(2, ' ', false, nlohmann::ordered_json::error_handler_t::replace) + "\n";
}

Result<MountRecord> RecordFromJson(std::string_view text) {
  DAVIT_TRY_ASSIGN(const nlohmann::json in, json::Parse(text, "mount record", 1U << 20));
  DAVIT_TRY_ASSIGN(const std::uint64_t version, json::NeedUint(in, "version"));
  if (version != kVersion) {
    return Error(Code::kUnsupported, "the record has version " + std::to_string(version));
  }
  MountRecord out;
  DAVIT_TRY_ASSIGN(out.request.id, json::NeedString(in, "id"));
  DAVIT_TRY_ASSIGN(out.request.source, json::NeedString(in, "source"));
  DAVIT_TRY_ASSIGN(out.request.mountpoint, json::NeedString(in, "mountpoint"));
  DAVIT_TRY_ASSIGN(out.request.platform, json::NeedString(in, "platform"));
  DAVIT_TRY_ASSIGN(const std::string ready, json::NeedString(in, "ready"));
  DAVIT_TRY_ASSIGN(out.request.ready, api::ParseReady(ready));
  DAVIT_TRY_ASSIGN(const auto fill, json::GetBool(in, "fill"));
  out.request.fill = fill.value_or(true);
  DAVIT_TRY_ASSIGN(const auto plain, json::GetBool(in, "plain_http"));
  out.request.plain_http = plain.value_or(false);
  DAVIT_TRY_ASSIGN(const auto volume, json::GetString(in, "volume"));
  out.request.volume = volume.value_or("");
  DAVIT_TRY_ASSIGN(out.manifest_digest, json::NeedString(in, "manifest_digest"));
  DAVIT_TRY_ASSIGN(out.platform, json::NeedString(in, "chosen_platform"));
  DAVIT_TRY(out.request.Validate());
  return out;
}

Result<MountStore> MountStore::Open(std::string directory) {
  DAVIT_TRY(MakeDirectories(directory));
  return MountStore(std::move(directory));
}

Status MountStore::Save(const MountRecord& record) const {
  DAVIT_TRY(api::CheckMountId(record.request.id));
  return ReplaceFile(PathOf(record.request.id), AsBytes(RecordToJson(record)));
}

Status MountStore::Sync(const std::string& id) const {
  DAVIT_TRY(api::CheckMountId(id));
  Status status = SyncFile(PathOf(id));
  if (!status && status.error().code() == Code::kNotFound) return {};
  return status;
}

Status MountStore::Remove(const std::string& id) const {
  DAVIT_TRY(api::CheckMountId(id));
  const std::string path = PathOf(id);
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    return Error::FromErrno(errno, "remove " + path);
  }
  return SyncDirectory(directory_);
}

Result<std::vector<MountRecord>> MountStore::Load() const {
  DAVIT_TRY_ASSIGN(const std::vector<std::string> names, ListDirectory(directory_));
  std::vector<MountRecord> out;
  for (const std::string& name : names) {
    if (!name.ends_with(kSuffix)) continue;  // a temporary file of a crash
    const std::string path = directory_ + "/" + name;
    auto text = ReadFile(path, 1U << 20);
    if (!text) return std::move(text).error();
    auto record = RecordFromJson(*text);
    if (record.ok() && record->request.id + std::string(kSuffix) != name) {
      record = Error(Code::kDataLoss, "it is the record of " + record->request.id);
    }
    if (!record) {
      log::Error("a mount record cannot be read; this mount does not come back",
                 {{"file", path}, {"error", record.error()}});
      continue;
    }
    out.push_back(*std::move(record));
  }
  return out;
}

}  // namespace davit::daemon
