#pragma once
// Errors at the kernel's edge: errno, and one log line instead of thousands; internal to
// rafs/fuse.

#include <cstdint>
#include <map>
#include <utility>

#include "common/base/sync.h"

namespace davit::rafs {

/// errno of a failed lookup, listing or attribute call. Damage is EIO, never a claim that a file
/// does not exist.
int MetadataErrno(const Error& error);
/// errno of a failed read: EIO whatever the cause was (programs handle little else), EINTR when
/// the reader is being killed.
int ReadErrno(const Error& error, bool reader_killed);

/// Thread-safe. A reader that retries, or a damaged file that is read in a loop, must not fill the
/// log: the same operation on the same inode is reported once a minute.
class ErrorLog {
 public:
  static constexpr std::chrono::seconds kQuiet{60};
  void Report(const char* operation, std::uint64_t inode, std::uint64_t offset, std::uint64_t size,
              const Error& error);
  /// What Report has written so far; for tests.
  std::uint64_t written() const;

 private:
  struct Entry {
    TimePoint written;
    std::uint64_t suppressed = 0;
  };
  mutable Mutex mutex_;
  std::map<std::pair<const char*, std::uint64_t>, Entry> seen_ DAVIT_GUARDED_BY(mutex_);
  std::uint64_t written_ DAVIT_GUARDED_BY(mutex_) = 0;
};

}  // namespace davit::rafs
