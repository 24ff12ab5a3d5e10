#pragma once
// Owned file descriptors and the small file operations that everything needs, as Results that
// name the path.

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"

namespace davit {

/// Owns one descriptor; closes it. Move-only.
class UniqueFd {
 public:
  UniqueFd() = default;
  explicit UniqueFd(int fd) : fd_(fd) {}
  UniqueFd(UniqueFd&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  UniqueFd& operator=(UniqueFd&& other) noexcept {
    if (this != &other) reset(std::exchange(other.fd_, -1));
    return *this;
  }
  ~UniqueFd() { reset(); }
  int get() const { return fd_; }
  explicit operator bool() const { return fd_ >= 0; }
  int release() { return std::exchange(fd_, -1); }
  void reset(int fd = -1);

 private:
  int fd_ = -1;
};

/// open(2) with O_CLOEXEC added.
Result<UniqueFd> OpenFile(const std::string& path, int flags, mode_t mode = 0600);
/// Reads until `out` is full or the file ends; the number of bytes read.
Result<std::size_t> PreadFull(int fd, MutableBytes out, std::uint64_t offset);
Status PwriteFull(int fd, Bytes data, std::uint64_t offset);
Status WriteFull(int fd, Bytes data);
Result<std::uint64_t> FileSize(int fd);

/// Whole file as a string; kResourceExhausted above `limit` bytes.
Result<std::string> ReadFile(const std::string& path, std::uint64_t limit = 64ULL << 20);
/// Temporary file in the same directory, fsync, rename, fsync of the directory: after a crash
/// there is the old content or the new one, never a mixture.
Status WriteFileAtomic(const std::string& path, Bytes data, mode_t mode = 0600);
/// The same without waiting for the disk: atomic for a crash of the process; after one of the
/// machine the file may be the old one, empty or missing, until SyncFile() was called.
Status ReplaceFile(const std::string& path, Bytes data, mode_t mode = 0600);
/// Makes a file and its name durable.
Status SyncFile(const std::string& path);
Status SyncDirectory(const std::string& path);
/// mkdir -p.
Status MakeDirectories(const std::string& path, mode_t mode = 0700);
/// rm -rf; a missing path is success. Does not follow symlinks or cross mounts.
Status RemoveTree(const std::string& path);
/// Names in a directory without "." and "..", sorted bytewise.
Result<std::vector<std::string>> ListDirectory(const std::string& path);

/// A new directory below `parent` (or $TMPDIR, or /tmp), removed with its content on destruction.
class TempDir {
 public:
  static Result<TempDir> Create(std::string_view prefix, const std::string& parent = "");
  TempDir(TempDir&& other) noexcept : path_(std::exchange(other.path_, {})) {}
  TempDir& operator=(TempDir&&) = delete;
  ~TempDir();
  const std::string& path() const { return path_; }

 private:
  explicit TempDir(std::string path) : path_(std::move(path)) {}
  std::string path_;
};

/// A read-only mapping of a whole file. A file that shrinks afterwards raises SIGBUS, so only
/// files in davit's own directories are mapped.
class MappedFile {
 public:
  static Result<std::shared_ptr<const MappedFile>> Open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;
  Bytes bytes() const { return bytes_; }
  /// The pages that were touched no longer count as this process's memory; they stay in the page
  /// cache and are mapped again when they are wanted.
  void ReleasePages() const;

 private:
  explicit MappedFile(Bytes bytes) : bytes_(bytes) {}
  Bytes bytes_;
};

}  // namespace davit
