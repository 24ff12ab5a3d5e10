#include "rafs/fuse/errors.h"

#include <cerrno>

#include "common/base/log.h"

namespace davit::rafs {

int MetadataErrno(const Error& error) {
  switch (error.code()) {
    case Code::kNotFound:
      return ENOENT;
    case Code::kInvalidArgument:
    case Code::kUnsupported:
    case Code::kPermissionDenied:
      return ToErrno(error);
    default:
      return EIO;
  }
}

int ReadErrno(const Error& error, bool reader_killed) {
  if (reader_killed && error.code() == Code::kCancelled) return EINTR;
  if (error.code() == Code::kInvalidArgument) return ToErrno(error);  // EISDIR and the like
  return EIO;
}

void ErrorLog::Report(const char* operation, std::uint64_t inode, std::uint64_t offset,
                      std::uint64_t size, const Error& error) {
  constexpr std::size_t kMaxEntries = 1024;
  const TimePoint now = std::chrono::steady_clock::now();
  std::uint64_t suppressed = 0;
  {
    const MutexLock lock(mutex_);
    if (seen_.size() >= kMaxEntries) seen_.clear();
    const auto [it, is_new] = seen_.try_emplace({operation, inode});
    if (!is_new && now - it->second.written < kQuiet) {
      ++it->second.suppressed;
      return;
    }
    suppressed = std::exchange(it->second.suppressed, 0);
    it->second.written = now;
    ++written_;
  }
  log::Error("a request of the kernel failed", {{"operation", operation},
                                                {"inode", inode},
                                                {"offset", offset},
                                                {"size", size},
                                                {"not_shown_before", suppressed},
                                                {"error", error}});
}

std::uint64_t ErrorLog::written() const {
  const MutexLock lock(mutex_);
  return written_;
}

}  // namespace davit::rafs
