#pragma once
// The durable form of a blob's ready bits.
//
// File: one header block, then for every page of bits two slots of one block each. A page is always
// written to the slot that does not hold its newest valid version, with a higher sequence number
// and a checksum. A write that is lost or torn therefore costs what it said and nothing else: the
// other slot still holds the version before. Callers sync a chunk's data before they set its bit,
// and have a cleared bit on disk before they destroy the data.

#include <cstdint>
#include <memory>
#include <optional>
#include <random>
#include <span>
#include <vector>

#include "common/base/result.h"
#include "common/digest/digest.h"
#include "storage/cache/cache_files.h"

namespace davit::storage {

/// Not thread-safe: guarded by the blob's mutex for durable state.
class ReadyFile {
 public:
  /// What the bits are about. Bits made for another table of chunks mean nothing.
  struct Subject {
    Digest identity;
    std::uint32_t chunk_count = 0;
    std::uint64_t data_size = 0;
    bool operator==(const Subject&) const = default;
  };

  /// `is_new`: the file did not exist before, so there are no bits on disk to be forgotten.
  explicit ReadyFile(std::unique_ptr<CacheFile> file, bool is_new = false)
      : file_(std::move(file)), untouched_(is_new) {}

  /// What the file's bits are about; nothing when it is empty or damaged.
  Result<std::optional<Subject>> ReadSubject();
  /// True when the file holds bits of this subject, which durable() then gives. False when it is
  /// empty, damaged or about something else: Reset() comes next. An error is the disk's.
  Result<bool> Load(const Subject& subject);
  /// Forgets all bits, durably. Before the data is touched.
  Status Invalidate();
  /// Starts a new file for the subject; no bit is set. It is durable with the first update: until
  /// then there is nothing in it.
  Status Create(const Subject& subject);
  bool IsDurable(std::uint32_t chunk) const {
    return (words_[chunk / 64] >> (chunk % 64) & 1) != 0;
  }
  /// Sets and clears bits and makes that durable. On an error the disk may hold either version of
  /// each bit; this object remembers the old one and repeats the pages next time.
  Status Update(std::span<const std::uint32_t> set, std::span<const std::uint32_t> clear);

 private:
  struct Page {
    std::uint64_t sequence = 0;
    std::uint8_t slot = 1;  // holds the newest version; the next goes to the other one
    bool repeat = false;    // what is on disk is not known
  };
  Status ReadPage(std::uint32_t page);
  Status WritePage(std::uint32_t page, std::span<const std::uint64_t> words);

  std::unique_ptr<CacheFile> file_;
  bool untouched_;
  Subject subject_;
  std::vector<std::uint64_t> words_;
  std::vector<Page> pages_;
  std::mt19937_64 random_{std::random_device{}()};
};

}  // namespace davit::storage
