#pragma once
// What must survive about blobs as a whole, and where content with a certain digest may be found.
// SQLite stays behind this header. Everything in it is a hint or a statistic: a lost or damaged
// database costs work, never correctness.

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "common/base/sync.h"
#include "storage/blob/blob.h"

struct sqlite3;
struct sqlite3_stmt;

namespace davit::storage {

/// Thread-safe; one connection.
class IndexDb {
 public:
  struct BlobRow {
    BlobId id;
    std::uint64_t bytes_ready = 0;
    std::uint64_t bytes_total = 0;
    bool complete = false;
    std::int64_t last_use = 0;
    bool operator==(const BlobRow&) const = default;
  };
  struct DigestRow {
    Digest digest;
    std::uint64_t offset = 0;  // in the blob's data file
    std::uint32_t size = 0;
  };
  struct Place {
    BlobId blob;
    std::uint64_t offset = 0;
  };

  /// A file that is not a good database of this version is moved aside.
  static Result<std::unique_ptr<IndexDb>> Open(const std::string& path);
  ~IndexDb();
  IndexDb(const IndexDb&) = delete;
  IndexDb& operator=(const IndexDb&) = delete;

  Result<std::vector<BlobRow>> Blobs();
  Status SaveBlobs(std::span<const BlobRow> rows);
  /// With its digests.
  Status RemoveBlob(const BlobId& id);

  Status AddDigests(const BlobId& id, std::span<const DigestRow> rows);
  Status RemoveDigests(const BlobId& id, std::span<const DigestRow> rows);
  /// False when no other blob has digests: nothing can be found then.
  bool MayFind(const BlobId& except) const;
  /// At most four places that may hold the content.
  std::vector<Place> Find(const Digest& digest, std::uint32_t size, const BlobId& except);

 private:
  class Statement;
  explicit IndexDb(sqlite3* db) : db_(db) {}
  Status Setup();
  Status Execute(const char* sql) DAVIT_REQUIRES(mutex_);
  Result<std::int64_t> NumberOf(const BlobId& id) DAVIT_REQUIRES(mutex_);
  Result<sqlite3_stmt*> Prepare(const char* sql) DAVIT_REQUIRES(mutex_);
  Error Failed(const char* what) const;

  mutable Mutex mutex_;
  sqlite3* const db_;
  sqlite3_stmt* find_ DAVIT_GUARDED_BY(mutex_) = nullptr;
  std::vector<BlobId> with_digests_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::storage
