#include "csi/core/journal.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/digest/digest.h"
#include "common/json/json.h"

namespace davit::csi {
namespace {

constexpr std::uint64_t kVersion = 1;
constexpr std::uint64_t kFileLimit = 1ULL << 20;
constexpr std::string_view kSuffix = ".json";

Result<PublishArgs> ArgsFromJson(const nlohmann::json& object) {
  PublishArgs args;
  DAVIT_TRY_ASSIGN(args.spec.image, json::NeedString(object, "image"));
  DAVIT_TRY_ASSIGN(const std::string ready, json::NeedString(object, "ready"));
  DAVIT_TRY_ASSIGN(args.spec.ready, daemon::api::ParseReady(ready));
  DAVIT_TRY_ASSIGN(args.spec.platform, json::NeedString(object, "platform"));
  DAVIT_TRY_ASSIGN(const auto plain_http, json::GetBool(object, "plain_http"));
  DAVIT_TRY_ASSIGN(const auto fill, json::GetBool(object, "fill"));
  DAVIT_TRY_ASSIGN(const auto read_only, json::GetBool(object, "read_only"));
  DAVIT_TRY_ASSIGN(const std::string mode, json::NeedString(object, "access_mode"));
  DAVIT_TRY_ASSIGN(args.mode, ParseAccessMode(mode));
  args.spec.plain_http = plain_http.value_or(false);
  args.spec.fill = fill.value_or(true);
  args.read_only = read_only.value_or(false);
  DAVIT_TRY_ASSIGN(const nlohmann::json* flags, json::GetArray(object, "mount_flags"));
  if (flags != nullptr) {
    for (const auto& flag : *flags) {
      if (!flag.is_string()) return Error(Code::kInvalidArgument, "mount_flags: not a string");
      args.mount_flags.push_back(flag.get<std::string>());
    }
  }
  return args;
}

Result<JournalEntry> ParseEntry(std::string_view text) {
  DAVIT_TRY_ASSIGN(const nlohmann::json object, json::Parse(text, "journal entry", kFileLimit));
  DAVIT_TRY_ASSIGN(const std::uint64_t version, json::NeedUint(object, "version"));
  if (version != kVersion) {
    return Error(Code::kDataLoss, fmt::format("version {} is not known", version));
  }
  JournalEntry entry;
  DAVIT_TRY_ASSIGN(entry.volume_id, json::NeedString(object, "volume_id"));
  DAVIT_TRY_ASSIGN(const std::string target, json::NeedString(object, "target"));
  DAVIT_TRY_ASSIGN(entry.args, ArgsFromJson(object));
  DAVIT_TRY_ASSIGN(const auto pod, json::GetString(object, "pod"));
  DAVIT_TRY_ASSIGN(const auto published, json::GetBool(object, "published"));
  DAVIT_TRY_ASSIGN(const std::uint64_t created, json::NeedUint(object, "created_unix"));
  DAVIT_TRY(CheckVolumeId(entry.volume_id));
  DAVIT_TRY_ASSIGN(entry.target, NormalPath(target, "target"));
  // Computed rather than read: it becomes part of a path.
  entry.mount_id = MountIdOf(entry.volume_id, entry.args.spec);
  entry.pod = pod.value_or("");
  entry.published = published.value_or(false);
  entry.created_unix = static_cast<std::int64_t>(created);
  return entry;
}

}  // namespace

std::string EntryToJson(const JournalEntry& entry) {
  nlohmann::json object = {
      {"version", kVersion},
      {"volume_id", entry.volume_id},
      {"target", entry.target},
      {"mount_id", entry.mount_id},
      {"image", entry.args.spec.image},
      {"ready", std::string(daemon::api::ReadyName(entry.args.spec.ready))},
      {"platform", entry.args.spec.platform},
      {"plain_http", entry.args.spec.plain_http},
      {"fill", entry.args.spec.fill},
      {"access_mode", std::string(AccessModeName(entry.args.mode))},
      {"mount_flags", entry.args.mount_flags},
      {"read_only", entry.args.read_only},
      {"pod", entry.pod},
      {"published", entry.published},
      {"created_unix", entry.created_unix},
  };
  return json::Dump(object, 2) + "\n";
}

Result<JournalEntry> EntryFromJson(std::string_view text) {
  auto entry = ParseEntry(text);
  if (!entry.ok()) return std::move(entry).error().WithCode(Code::kDataLoss);
  return entry;
}

Result<std::unique_ptr<Journal>> Journal::Open(const std::string& directory) {
  DAVIT_TRY(MakeDirectories(directory));
  std::unique_ptr<Journal> journal(new Journal(directory));
  DAVIT_TRY_ASSIGN(const auto names, ListDirectory(directory));
  MutexLock lock(journal->mutex_);
  for (const std::string& name : names) {
    const std::string path = directory + "/" + name;
    if (name.find(".tmp.") != std::string::npos) {
      ::unlink(path.c_str());  // left by a crash in the middle of a write
      continue;
    }
    if (!name.ends_with(kSuffix)) continue;
    auto text = ReadFile(path, kFileLimit);
    Result<JournalEntry> entry =
        text.ok() ? EntryFromJson(*text) : Result<JournalEntry>(std::move(text).error());
    if (!entry.ok()) {
      const std::string aside = path + ".bad";
      static_cast<void>(::rename(path.c_str(), aside.c_str()));
      log::Error("a journal entry cannot be read and was set aside",
                 {{"file", aside}, {"error", entry.error()}});
      continue;
    }
    Key key{entry->volume_id, entry->target};
    journal->entries_.insert_or_assign(std::move(key), *std::move(entry));
  }
  return journal;
}

std::string Journal::FileOf(const Key& key) const {
  const std::string text = fmt::format("{}:{}{}", key.first.size(), key.first, key.second);
  return directory_ + "/" +
         Digest::Of(DigestAlgorithm::kSha256, AsBytes(text)).Hex().substr(0, 32) +
         std::string(kSuffix);
}

Status Journal::Put(const JournalEntry& entry) {
  MutexLock one_at_a_time(write_mutex_);
  const Key key{entry.volume_id, entry.target};
  Status written = WriteFileAtomic(FileOf(key), AsBytes(EntryToJson(entry)));
  if (!written.ok()) return std::move(written).error().WithContext("journal");
  MutexLock lock(mutex_);
  entries_.insert_or_assign(key, entry);
  return {};
}

Status Journal::Remove(const std::string& volume_id, const std::string& target) {
  MutexLock one_at_a_time(write_mutex_);
  const Key key{volume_id, target};
  const std::string file = FileOf(key);
  if (::unlink(file.c_str()) != 0 && errno != ENOENT) {
    return Error::FromErrno(errno, "journal: remove " + file);
  }
  DAVIT_TRY(SyncDirectory(directory_));
  MutexLock lock(mutex_);
  entries_.erase(key);
  return {};
}

std::optional<JournalEntry> Journal::Find(const std::string& volume_id,
                                          const std::string& target) const {
  MutexLock lock(mutex_);
  const auto it = entries_.find(Key{volume_id, target});
  if (it == entries_.end()) return std::nullopt;
  return it->second;
}

template <class Keep>
std::vector<JournalEntry> Journal::Select(Keep keep) const {
  MutexLock lock(mutex_);
  std::vector<JournalEntry> out;
  for (const auto& [key, entry] : entries_) {
    if (keep(entry)) out.push_back(entry);
  }
  return out;
}

std::vector<JournalEntry> Journal::OfVolume(const std::string& volume_id) const {
  return Select([&](const JournalEntry& entry) { return entry.volume_id == volume_id; });
}

std::vector<JournalEntry> Journal::OfTarget(const std::string& target) const {
  return Select([&](const JournalEntry& entry) { return entry.target == target; });
}

std::vector<JournalEntry> Journal::All() const {
  return Select([](const JournalEntry&) { return true; });
}

std::size_t Journal::References(const std::string& mount_id) const {
  return Select([&](const JournalEntry& entry) { return entry.mount_id == mount_id; }).size();
}

}  // namespace davit::csi
