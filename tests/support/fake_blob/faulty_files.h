#pragma once
// A disk that loses power, fills up and fails.

#include <functional>
#include <map>
#include <memory>
#include <random>
#include <set>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/sync.h"
#include "storage/cache/cache_files.h"

namespace davit::test {

/// Files in memory. Reads see every write (the page cache); only what was synced is sure to be
/// there after PowerCut(), which keeps an arbitrary part of the rest: whole operations, or single
/// sectors of writes. Thread-safe.
class FaultyFiles final : public storage::CacheFiles {
 public:
  FaultyFiles();
  ~FaultyFiles() override;
  Result<std::unique_ptr<storage::CacheFile>> Open(const std::string& path) override;
  Status Remove(const std::string& path) override;
  Result<std::uint64_t> FreeBytes(const std::string& path) override;

  /// Nothing reaches the disk any more: later operations fail. Then every file is what survived.
  void PowerCut(std::uint64_t seed);
  /// The next operations work again, on what survived.
  void PowerOn();

  void set_free_bytes(std::uint64_t bytes);
  /// How often the free bytes were asked for.
  int free_bytes_asked() const;
  /// Files can share blocks from now on; `after_clone` runs after each that was made.
  void AllowClones(std::function<void()> after_clone = {});
  int clones() const;
  /// errno of every following write, sync or hole whose path ends like this; 0: none.
  void FailWrites(const std::string& suffix, int error);
  void FailSyncs(const std::string& suffix, int error);
  void FailOpens(const std::string& suffix, int error);
  void FailRemoves(const std::string& suffix, int error);
  /// The 4 KiB blocks of the range cannot be read, nor written in part. They are good again when
  /// they are written as a whole or punched, unless `for_good`: then they only cannot be read.
  void BreakBlocks(const std::string& suffix, ByteRange range, bool for_good = false);
  /// The next sync of any file fails as a cut of power would make it: nothing is lost yet.
  void FailNextSync();
  int syncs(const std::string& suffix) const;
  /// Bytes in 4 KiB blocks of all files that are not holes.
  std::uint64_t AllocatedBytes() const;

  struct Disk;

 private:
  std::shared_ptr<Disk> disk_;
};

}  // namespace davit::test
