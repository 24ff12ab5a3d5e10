#include "common/base/fd.h"

#include <dirent.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>

namespace davit {

void UniqueFd::reset(int fd) {
  if (fd_ >= 0) ::close(fd_);
  fd_ = fd;
}

Result<UniqueFd> OpenFile(const std::string& path, int flags, mode_t mode) {
  const int fd = ::open(path.c_str(), flags | O_CLOEXEC, mode);
  if (fd < 0) return Error::FromErrno(errno, "open " + path);
  return UniqueFd(fd);
}

Result<std::size_t> PreadFull(int fd, MutableBytes out, std::uint64_t offset) {
  std::size_t done = 0;
  while (done < out.size()) {
    const ssize_t n =
        ::pread(fd, out.data() + done, out.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      return Error::FromErrno(errno, fmt::format("read {} bytes at {}", out.size(), offset));
    if (n == 0) break;
    done += static_cast<std::size_t>(n);
  }
  return done;
}

Status PwriteFull(int fd, Bytes data, std::uint64_t offset) {
  std::size_t done = 0;
  while (done < data.size()) {
    const ssize_t n =
        ::pwrite(fd, data.data() + done, data.size() - done, static_cast<off_t>(offset + done));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0)
      return Error::FromErrno(errno, fmt::format("write {} bytes at {}", data.size(), offset));
    done += static_cast<std::size_t>(n);
  }
  return {};
}

Status WriteFull(int fd, Bytes data) {
  std::size_t done = 0;
  while (done < data.size()) {
    const ssize_t n = ::write(fd, data.data() + done, data.size() - done);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return Error::FromErrno(errno, fmt::format("write {} bytes", data.size()));
    done += static_cast<std::size_t>(n);
  }
  return {};
}

Result<std::uint64_t> FileSize(int fd) {
  struct stat st{};
  if (::fstat(fd, &st) != 0) return Error::FromErrno(errno, "fstat");
  return static_cast<std::uint64_t>(st.st_size);
}

Result<std::string> ReadFile(const std::string& path, std::uint64_t limit) {
  DAVIT_TRY_ASSIGN(UniqueFd fd, OpenFile(path, O_RDONLY));
  std::string out;
  // Read to the end rather than to st_size: files of /proc and /sys say 0.
  while (true) {
    const std::size_t have = out.size();
    if (have > limit) {
      return Error(Code::kResourceExhausted,
                   fmt::format("{} is larger than {} bytes", path, limit));
    }
    out.resize(have + 65536);
    const ssize_t n = ::read(fd.get(), out.data() + have, 65536);
    if (n < 0 && errno == EINTR) {
      out.resize(have);
      continue;
    }
    if (n < 0) return Error::FromErrno(errno, "read " + path);
    out.resize(have + static_cast<std::size_t>(n));
    if (n == 0) return out;
  }
}

Status SyncDirectory(const std::string& path) {
  DAVIT_TRY_ASSIGN(UniqueFd fd, OpenFile(path, O_RDONLY | O_DIRECTORY));
  if (::fsync(fd.get()) != 0) return Error::FromErrno(errno, "fsync " + path);
  return {};
}

namespace {
std::string ParentOf(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Status WriteAndRename(const std::string& path, Bytes data, mode_t mode, bool sync) {
  std::string temporary = path + ".tmp.XXXXXX";
  UniqueFd fd(::mkostemp(temporary.data(), O_CLOEXEC));
  if (!fd) return Error::FromErrno(errno, "create " + temporary);
  Status status = WriteFull(fd.get(), data);
  if (status.ok() && ::fchmod(fd.get(), mode) != 0) status = Error::FromErrno(errno, "chmod");
  if (status.ok() && sync && ::fsync(fd.get()) != 0) status = Error::FromErrno(errno, "fsync");
  if (status.ok() && ::rename(temporary.c_str(), path.c_str()) != 0) {
    status = Error::FromErrno(errno, "rename");
  }
  if (status.ok()) return {};
  ::unlink(temporary.c_str());
  return std::move(status).error().WithContext("write " + path);
}

}  // namespace

Status WriteFileAtomic(const std::string& path, Bytes data, mode_t mode) {
  DAVIT_TRY(WriteAndRename(path, data, mode, true));
  return SyncDirectory(ParentOf(path));
}

Status ReplaceFile(const std::string& path, Bytes data, mode_t mode) {
  return WriteAndRename(path, data, mode, false);
}

Status SyncFile(const std::string& path) {
  DAVIT_TRY_ASSIGN(const UniqueFd fd, OpenFile(path, O_RDONLY));
  if (::fsync(fd.get()) != 0) return Error::FromErrno(errno, "sync " + path);
  return SyncDirectory(ParentOf(path));
}

Status MakeDirectories(const std::string& path, mode_t mode) {
  for (std::size_t end = 0; end != std::string::npos;) {
    end = path.find('/', end + 1);
    const std::string part = path.substr(0, end);
    if (part.empty()) continue;
    if (::mkdir(part.c_str(), mode) != 0 && errno != EEXIST) {
      return Error::FromErrno(errno, "mkdir " + part);
    }
  }
  struct stat st{};
  if (::stat(path.c_str(), &st) != 0) return Error::FromErrno(errno, "stat " + path);
  if (!S_ISDIR(st.st_mode)) return Error::FromErrno(ENOTDIR, "mkdir " + path);
  return {};
}

namespace {

// Removes what is below `fd` (consumed). Never leaves the device it started on.
Status RemoveChildren(UniqueFd fd, dev_t device, const std::string& path) {
  DIR* dir = ::fdopendir(fd.get());
  if (dir == nullptr) return Error::FromErrno(errno, "open directory " + path);
  const int dir_fd = fd.release();
  std::unique_ptr<DIR, int (*)(DIR*)> closer(dir, ::closedir);
  while (true) {
    errno = 0;
    const dirent* entry = ::readdir(dir);
    if (entry == nullptr) break;
    const std::string name = entry->d_name;
    if (name == "." || name == "..") continue;
    struct stat st{};
    if (::fstatat(dir_fd, name.c_str(), &st, AT_SYMLINK_NOFOLLOW) != 0) {
      if (errno == ENOENT) continue;
      return Error::FromErrno(errno, "stat " + path + "/" + name);
    }
    if (st.st_dev != device) {
      return Error(Code::kFailedPrecondition, path + "/" + name + " is a mount point, not removed");
    }
    const bool is_dir = S_ISDIR(st.st_mode);
    if (is_dir) {
      UniqueFd child(
          ::openat(dir_fd, name.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
      if (!child) return Error::FromErrno(errno, "open " + path + "/" + name);
      DAVIT_TRY(RemoveChildren(std::move(child), device, path + "/" + name));
    }
    if (::unlinkat(dir_fd, name.c_str(), is_dir ? AT_REMOVEDIR : 0) != 0 && errno != ENOENT) {
      return Error::FromErrno(errno, "remove " + path + "/" + name);
    }
  }
  return {};
}

}  // namespace

Status RemoveTree(const std::string& path) {
  struct stat st{};
  if (::lstat(path.c_str(), &st) != 0) {
    if (errno == ENOENT) return {};
    return Error::FromErrno(errno, "stat " + path);
  }
  if (!S_ISDIR(st.st_mode)) {
    if (::unlink(path.c_str()) != 0) return Error::FromErrno(errno, "remove " + path);
    return {};
  }
  DAVIT_TRY_ASSIGN(UniqueFd fd, OpenFile(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW));
  DAVIT_TRY(RemoveChildren(std::move(fd), st.st_dev, path));
  if (::rmdir(path.c_str()) != 0 && errno != ENOENT)
    return Error::FromErrno(errno, "rmdir " + path);
  return {};
}

Result<std::vector<std::string>> ListDirectory(const std::string& path) {
  std::unique_ptr<DIR, int (*)(DIR*)> dir(::opendir(path.c_str()), ::closedir);
  if (!dir) return Error::FromErrno(errno, "open directory " + path);
  std::vector<std::string> names;
  while (const dirent* entry = ::readdir(dir.get())) {
    std::string name = entry->d_name;
    if (name != "." && name != "..") names.push_back(std::move(name));
  }
  std::sort(names.begin(), names.end());
  return names;
}

Result<TempDir> TempDir::Create(std::string_view prefix, const std::string& parent) {
  std::string base = parent;
  if (base.empty()) {
    const char* tmp = std::getenv("TMPDIR");
    base = tmp != nullptr && *tmp != '\0' ? tmp : "/tmp";
  }
  std::string path = fmt::format("{}/{}.XXXXXX", base, prefix);
  if (::mkdtemp(path.data()) == nullptr) return Error::FromErrno(errno, "create directory " + path);
  return TempDir(std::move(path));
}

TempDir::~TempDir() {
  if (path_.empty()) return;
  // Nothing can be done about a failure here; the directory is left for the user to see.
  static_cast<void>(RemoveTree(path_));
}

Result<std::shared_ptr<const MappedFile>> MappedFile::Open(const std::string& path) {
  DAVIT_TRY_ASSIGN(UniqueFd fd, OpenFile(path, O_RDONLY));
  DAVIT_TRY_ASSIGN(const std::uint64_t size, FileSize(fd.get()));
  if (size == 0) return std::shared_ptr<const MappedFile>(new MappedFile(Bytes{}));
  void* address = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd.get(), 0);
  if (address == MAP_FAILED) return Error::FromErrno(errno, "map " + path);
  return std::shared_ptr<const MappedFile>(
      new MappedFile(Bytes(static_cast<const std::byte*>(address), size)));
}

void MappedFile::ReleasePages() const {
  // Never fails for such a mapping; if it did, only the memory would stay.
  if (!bytes_.empty()) {
    ::madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(), MADV_DONTNEED);
  }
}

MappedFile::~MappedFile() {
  if (bytes_.empty()) return;
  // munmap takes what mmap gave, which was writable in type only.
  ::munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

}  // namespace davit
