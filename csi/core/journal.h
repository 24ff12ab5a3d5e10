#pragma once
// What is published where: one small file per volume and target, so that a restarted driver knows
// which mounts to keep, to make again and to drop. It never holds secrets.

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/sync.h"
#include "csi/core/publish_args.h"

namespace davit::csi {

struct JournalEntry {
  std::string volume_id, target;
  std::string mount_id;  // the daemon's mount behind it
  PublishArgs args;
  std::string pod;         // namespace/name, for logs; may be empty
  bool published = false;  // false: begun, and nobody was told that it succeeded
  std::int64_t created_unix = 0;
};

/// Text of an entry's file and back; kDataLoss for text that is no entry.
std::string EntryToJson(const JournalEntry& entry);
Result<JournalEntry> EntryFromJson(std::string_view text);

/// Thread-safe. Each change is on disk before the call returns.
class Journal {
 public:
  /// Makes the directory or reads what is in it. Files that cannot be understood are set aside
  /// with the suffix ".bad" and logged; they must not keep the node from working.
  static Result<std::unique_ptr<Journal>> Open(const std::string& directory);

  Status Put(const JournalEntry& entry);
  /// A missing entry is success.
  Status Remove(const std::string& volume_id, const std::string& target);
  std::optional<JournalEntry> Find(const std::string& volume_id, const std::string& target) const;
  std::vector<JournalEntry> OfVolume(const std::string& volume_id) const;
  std::vector<JournalEntry> OfTarget(const std::string& target) const;
  std::vector<JournalEntry> All() const;
  /// How many targets show the mount.
  std::size_t References(const std::string& mount_id) const;

 private:
  using Key = std::pair<std::string, std::string>;
  explicit Journal(std::string directory) : directory_(std::move(directory)) {}
  std::string FileOf(const Key& key) const;
  template <class Keep>
  std::vector<JournalEntry> Select(Keep keep) const;

  const std::string directory_;
  Mutex write_mutex_;  // one change at a time; taken before mutex_
  mutable Mutex mutex_;
  std::map<Key, JournalEntry> entries_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::csi
