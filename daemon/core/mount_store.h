#pragma once
// Mounts on disk: one small file each, without secrets, so that they are there again after a
// restart.

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/base/result.h"
#include "daemon/api/types.h"

namespace davit::daemon {

/// What has to be known to mount again.
struct MountRecord {
  api::MountRequest request;    // without registry_auth
  std::string manifest_digest;  // what the source meant when it was mounted
  std::string platform;
};

/// Text of a record's file and back; the text is checked as a request of the API is.
std::string RecordToJson(const MountRecord& record);
Result<MountRecord> RecordFromJson(std::string_view text);

/// Thread-safe for different ids; the caller keeps calls for one id apart.
class MountStore {
 public:
  /// Creates the directory.
  static Result<MountStore> Open(std::string directory);
  /// Survives a crash of the process at once, one of the machine after Sync().
  Status Save(const MountRecord& record) const;
  /// A missing one is success.
  Status Sync(const std::string& id) const;
  /// A missing one is success.
  Status Remove(const std::string& id) const;
  /// Damaged files are reported in the log and left alone.
  Result<std::vector<MountRecord>> Load() const;

 private:
  explicit MountStore(std::string directory) : directory_(std::move(directory)) {}
  std::string PathOf(const std::string& id) const { return directory_ + "/" + id + ".json"; }
  std::string directory_;
};

}  // namespace davit::daemon
