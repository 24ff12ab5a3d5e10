#pragma once
// The cache's view of its disk: few operations, so that tests can lose power and fill the disk.

#include <cstdint>
#include <memory>
#include <string>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace davit::storage {

/// One open file. Thread-safe.
class CacheFile {
 public:
  virtual ~CacheFile() = default;
  virtual int fd() const = 0;  // -1 when there is no real file behind it
  virtual Result<std::size_t> ReadAt(std::uint64_t offset, MutableBytes out) = 0;
  virtual Status WriteAt(std::uint64_t offset, Bytes data) = 0;
  /// Makes the range hold what `source` holds from `source_offset`, on the same disk blocks. Both
  /// offsets and the length are whole blocks, inside of both files. kUnsupported: the file system
  /// shares no blocks.
  virtual Status CloneFrom(CacheFile& /*source*/, std::uint64_t /*source_offset*/,
                           ByteRange /*range*/) {
    return Error(Code::kUnsupported, "this file system shares no blocks");
  }
  virtual Status SyncData() = 0;
  virtual Status PunchHole(ByteRange range) = 0;
  virtual Status Truncate(std::uint64_t size) = 0;
  virtual Result<std::uint64_t> Size() = 0;
  /// Bytes that the file occupies on disk.
  virtual Result<std::uint64_t> AllocatedBytes() = 0;
};

class CacheFiles {
 public:
  virtual ~CacheFiles() = default;
  /// Opens for reading and writing, creates when missing.
  virtual Result<std::unique_ptr<CacheFile>> Open(const std::string& path) = 0;
  /// A missing file is success.
  virtual Status Remove(const std::string& path) = 0;
  /// Free bytes of the file system of a path.
  virtual Result<std::uint64_t> FreeBytes(const std::string& path) = 0;
  /// The operating system's; lives for ever.
  static CacheFiles& Real();
};

}  // namespace davit::storage
