#include "storage/cache/index_db.h"

#include <fmt/format.h>
#include <sqlite3.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <functional>

#include "common/base/log.h"

namespace davit::storage {
namespace {

constexpr int kSchemaVersion = 1;
constexpr const char* kSchema =
    "CREATE TABLE IF NOT EXISTS blobs(num INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE,"
    " bytes_ready INTEGER NOT NULL DEFAULT 0, bytes_total INTEGER NOT NULL DEFAULT 0,"
    " complete INTEGER NOT NULL DEFAULT 0, last_use INTEGER NOT NULL DEFAULT 0);"
    "CREATE TABLE IF NOT EXISTS digests(key INTEGER NOT NULL, blob INTEGER NOT NULL,"
    " offset INTEGER NOT NULL, size INTEGER NOT NULL, PRIMARY KEY(key, blob, offset))"
    " WITHOUT ROWID;"
    "CREATE INDEX IF NOT EXISTS digests_of_blob ON digests(blob);";

std::int64_t KeyOf(const Digest& digest) {
  std::int64_t key;
  std::memcpy(&key, digest.bytes.data(), sizeof key);
  return key;
}

}  // namespace

// A prepared statement for one use.
class IndexDb::Statement {
 public:
  explicit Statement(sqlite3_stmt* statement) : statement_(statement) {}
  ~Statement() { sqlite3_finalize(statement_); }
  Statement(const Statement&) = delete;
  Statement& operator=(const Statement&) = delete;
  sqlite3_stmt* get() const { return statement_; }
  void Bind(int index, std::int64_t value) { sqlite3_bind_int64(statement_, index, value); }
  void Bind(int index, const std::string& text) {
    sqlite3_bind_text(statement_, index, text.data(), static_cast<int>(text.size()), nullptr);
  }
  int Step() { return sqlite3_step(statement_); }
  void Reset() { sqlite3_reset(statement_); }

 private:
  sqlite3_stmt* const statement_;
};

Error IndexDb::Failed(const char* what) const {
  const int code = sqlite3_errcode(db_) & 0xff;
  return Error(code == SQLITE_FULL ? Code::kResourceExhausted : Code::kInternal,
               fmt::format("cache.db: {}: {}", what, sqlite3_errmsg(db_)));
}

Status IndexDb::Execute(const char* sql) {
  if (sqlite3_exec(db_, sql, nullptr, nullptr, nullptr) != SQLITE_OK) return Failed("execute");
  return {};
}

Result<sqlite3_stmt*> IndexDb::Prepare(const char* sql) {
  sqlite3_stmt* statement = nullptr;
  if (sqlite3_prepare_v2(db_, sql, -1, &statement, nullptr) != SQLITE_OK) return Failed("prepare");
  return statement;
}

Status IndexDb::Setup() {
  MutexLock lock(mutex_);
  // One owner per directory: no shared-memory file is needed. A small cache keeps the daemon small.
  DAVIT_TRY(
      Execute("PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL;"
              "PRAGMA synchronous=NORMAL; PRAGMA cache_size=-1024;"));
  int found = 0;
  {
    DAVIT_TRY_ASSIGN(sqlite3_stmt * raw, Prepare("PRAGMA user_version"));
    Statement version(raw);
    if (version.Step() != SQLITE_ROW) return Failed("read the version");
    found = sqlite3_column_int(version.get(), 0);
    if (found != 0 && found != kSchemaVersion) {
      return Error(Code::kFailedPrecondition, fmt::format("cache.db has version {}", found));
    }
  }
  // One that is there is only read: a disk that is full must not keep the cache from starting.
  if (found == 0) {
    DAVIT_TRY(Execute(kSchema));
    DAVIT_TRY(Execute(fmt::format("PRAGMA user_version={}", kSchemaVersion).c_str()));
  }
  {
    DAVIT_TRY_ASSIGN(sqlite3_stmt * raw, Prepare("PRAGMA quick_check(1)"));
    Statement check(raw);
    if (check.Step() != SQLITE_ROW ||
        std::strcmp(reinterpret_cast<const char*>(sqlite3_column_text(check.get(), 0)), "ok") !=
            0) {
      return Error(Code::kDataLoss, "cache.db is damaged");
    }
  }
  DAVIT_TRY_ASSIGN(
      sqlite3_stmt * raw,
      Prepare("SELECT id FROM blobs WHERE num IN (SELECT DISTINCT blob FROM digests)"));
  Statement with_digests(raw);
  while (with_digests.Step() == SQLITE_ROW) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(with_digests.get(), 0));
    if (auto id = BlobId::Parse(text != nullptr ? text : ""); id.ok())
      with_digests_.push_back(*std::move(id));
  }
  DAVIT_TRY_ASSIGN(find_,
                   Prepare("SELECT b.id, d.offset FROM digests d JOIN blobs b ON b.num = d.blob"
                           " WHERE d.key = ?1 AND d.size = ?2 AND b.id <> ?3 LIMIT 4"));
  return {};
}

Result<std::unique_ptr<IndexDb>> IndexDb::Open(const std::string& path) {
  Status last;
  for (int attempt = 0; attempt < 2; ++attempt) {
    sqlite3* raw = nullptr;
    const int flags =
        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX | SQLITE_OPEN_NOFOLLOW;
    const int code = sqlite3_open_v2(path.c_str(), &raw, flags, nullptr);
    std::unique_ptr<IndexDb> db(new IndexDb(raw));
    last = code == SQLITE_OK ? db->Setup() : Status(db->Failed("open"));
    if (last.ok()) return db;
    if (attempt != 0 || last.error().code() == Code::kResourceExhausted) break;
    db.reset();
    log::Warn("the cache's database cannot be used and starts anew",
              {{"path", path}, {"error", last.error()}});
    for (const char* suffix : {"-wal", "-shm", ""}) {
      const std::string from = path + suffix;
      if (std::rename(from.c_str(), (path + ".damaged" + suffix).c_str()) != 0 && errno != ENOENT) {
        return Error::FromErrno(errno, "move aside " + from);
      }
    }
  }
  return std::move(last).error().WithContext(path);
}

IndexDb::~IndexDb() {
  sqlite3_finalize(find_);
  sqlite3_close(db_);
}

Result<std::vector<IndexDb::BlobRow>> IndexDb::Blobs() {
  MutexLock lock(mutex_);
  DAVIT_TRY_ASSIGN(sqlite3_stmt * raw,
                   Prepare("SELECT id, bytes_ready, bytes_total, complete, last_use FROM blobs"));
  Statement rows(raw);
  std::vector<BlobRow> out;
  while (rows.Step() == SQLITE_ROW) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(rows.get(), 0));
    auto id = BlobId::Parse(text != nullptr ? text : "");
    if (!id.ok()) continue;
    out.push_back(
        BlobRow{.id = *std::move(id),
                .bytes_ready = static_cast<std::uint64_t>(sqlite3_column_int64(rows.get(), 1)),
                .bytes_total = static_cast<std::uint64_t>(sqlite3_column_int64(rows.get(), 2)),
                .complete = sqlite3_column_int(rows.get(), 3) != 0,
                .last_use = sqlite3_column_int64(rows.get(), 4)});
  }
  return out;
}

Status IndexDb::SaveBlobs(std::span<const BlobRow> rows) {
  if (rows.empty()) return {};
  MutexLock lock(mutex_);
  Status status;
  {
    DAVIT_TRY_ASSIGN(sqlite3_stmt * raw, Prepare("INSERT INTO blobs(id, bytes_ready, bytes_total, "
                                                 "complete, last_use) VALUES(?1,?2,?3,?4,?5)"
                                                 " ON CONFLICT(id) DO UPDATE SET bytes_ready=?2, "
                                                 "bytes_total=?3, complete=?4, last_use=?5"));
    Statement insert(raw);
    DAVIT_TRY(Execute("BEGIN"));
    for (const BlobRow& row : rows) {
      insert.Bind(1, row.id.value);
      insert.Bind(2, static_cast<std::int64_t>(row.bytes_ready));
      insert.Bind(3, static_cast<std::int64_t>(row.bytes_total));
      insert.Bind(4, row.complete ? 1 : 0);
      insert.Bind(5, row.last_use);
      if (insert.Step() != SQLITE_DONE) status = Failed("save a blob");
      insert.Reset();
    }
  }
  static_cast<void>(Execute(status.ok() ? "COMMIT" : "ROLLBACK"));
  return status;
}

Result<std::int64_t> IndexDb::NumberOf(const BlobId& id) {
  for (int attempt = 0; attempt < 2; ++attempt) {
    DAVIT_TRY_ASSIGN(sqlite3_stmt * raw, Prepare("SELECT num FROM blobs WHERE id = ?1"));
    Statement select(raw);
    select.Bind(1, id.value);
    if (select.Step() == SQLITE_ROW) return sqlite3_column_int64(select.get(), 0);
    DAVIT_TRY_ASSIGN(sqlite3_stmt * raw_insert,
                     Prepare("INSERT OR IGNORE INTO blobs(id) VALUES(?1)"));
    Statement insert(raw_insert);
    insert.Bind(1, id.value);
    if (insert.Step() != SQLITE_DONE) return Failed("add a blob");
  }
  return Failed("find a blob");
}

Status IndexDb::RemoveBlob(const BlobId& id) {
  MutexLock lock(mutex_);
  std::erase(with_digests_, id);
  for (const char* sql : {"DELETE FROM digests WHERE blob = (SELECT num FROM blobs WHERE id = ?1)",
                          "DELETE FROM blobs WHERE id = ?1"}) {
    DAVIT_TRY_ASSIGN(sqlite3_stmt * raw, Prepare(sql));
    Statement remove(raw);
    remove.Bind(1, id.value);
    if (remove.Step() != SQLITE_DONE) return Failed("remove a blob");
  }
  return {};
}

Status IndexDb::AddDigests(const BlobId& id, std::span<const DigestRow> rows) {
  if (rows.empty()) return {};
  MutexLock lock(mutex_);
  DAVIT_TRY_ASSIGN(const std::int64_t blob, NumberOf(id));
  Status status;
  {
    DAVIT_TRY_ASSIGN(sqlite3_stmt * raw,
                     Prepare("INSERT OR REPLACE INTO digests VALUES(?1,?2,?3,?4)"));
    Statement insert(raw);
    DAVIT_TRY(Execute("BEGIN"));
    for (const DigestRow& row : rows) {
      insert.Bind(1, KeyOf(row.digest));
      insert.Bind(2, blob);
      insert.Bind(3, static_cast<std::int64_t>(row.offset));
      insert.Bind(4, row.size);
      if (insert.Step() != SQLITE_DONE) status = Failed("add digests");
      insert.Reset();
    }
  }
  static_cast<void>(Execute(status.ok() ? "COMMIT" : "ROLLBACK"));
  if (status.ok() &&
      std::find(with_digests_.begin(), with_digests_.end(), id) == with_digests_.end()) {
    with_digests_.push_back(id);
  }
  return status;
}

Status IndexDb::RemoveDigests(const BlobId& id, std::span<const DigestRow> rows) {
  MutexLock lock(mutex_);
  DAVIT_TRY_ASSIGN(const std::int64_t blob, NumberOf(id));
  {
    DAVIT_TRY_ASSIGN(sqlite3_stmt * raw,
                     Prepare("DELETE FROM digests WHERE key=?1 AND blob=?2 AND offset=?3"));
    Statement remove(raw);
    DAVIT_TRY(Execute("BEGIN"));
    for (const DigestRow& row : rows) {
      remove.Bind(1, KeyOf(row.digest));
      remove.Bind(2, blob);
      remove.Bind(3, static_cast<std::int64_t>(row.offset));
      remove.Step();
      remove.Reset();
    }
  }
  return Execute("COMMIT");
}

bool IndexDb::MayFind(const BlobId& except) const {
  MutexLock lock(mutex_);
  return std::any_of(with_digests_.begin(), with_digests_.end(),
                     [&](const BlobId& id) { return id != except; });
}

std::vector<IndexDb::Place> IndexDb::Find(const Digest& digest, std::uint32_t size,
                                          const BlobId& except) {
  std::vector<Place> out;
  MutexLock lock(mutex_);
  sqlite3_bind_int64(find_, 1, KeyOf(digest));
  sqlite3_bind_int64(find_, 2, size);
  sqlite3_bind_text(find_, 3, except.value.data(), static_cast<int>(except.value.size()), nullptr);
  while (sqlite3_step(find_) == SQLITE_ROW) {
    const auto* text = reinterpret_cast<const char*>(sqlite3_column_text(find_, 0));
    if (auto id = BlobId::Parse(text != nullptr ? text : ""); id.ok()) {
      out.push_back(
          Place{*std::move(id), static_cast<std::uint64_t>(sqlite3_column_int64(find_, 1))});
    }
  }
  sqlite3_reset(find_);
  return out;
}

}  // namespace davit::storage
