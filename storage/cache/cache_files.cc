#include "storage/cache/cache_files.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/fs.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "common/base/fd.h"

namespace davit::storage {
namespace {

class RealFile final : public CacheFile {
 public:
  RealFile(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}

  int fd() const override { return fd_.get(); }
  Result<std::size_t> ReadAt(std::uint64_t offset, MutableBytes out) override {
    return Named(PreadFull(fd_.get(), out, offset));
  }
  Status WriteAt(std::uint64_t offset, Bytes data) override {
    return Named(PwriteFull(fd_.get(), data, offset));
  }
  Status CloneFrom(CacheFile& source, std::uint64_t source_offset, ByteRange range) override {
    struct file_clone_range request{};
    request.src_fd = source.fd();
    request.src_offset = source_offset;
    request.src_length = range.length;
    request.dest_offset = range.offset;
    if (::ioctl(fd_.get(), FICLONERANGE, &request) == 0) return {};
    Error error = Error::FromErrno(errno, "share blocks with " + path_);
    if (errno == EOPNOTSUPP || errno == ENOTTY || errno == EXDEV) {
      return std::move(error).WithCode(Code::kUnsupported);
    }
    return error;
  }
  Status SyncData() override {
    if (::fdatasync(fd_.get()) != 0) return Error::FromErrno(errno, "fdatasync " + path_);
    return {};
  }
  Status PunchHole(ByteRange range) override {
    if (range.length == 0) return {};
    if (::fallocate(fd_.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
                    static_cast<off_t>(range.offset), static_cast<off_t>(range.length)) != 0) {
      return Error::FromErrno(errno, "punch a hole into " + path_);
    }
    return {};
  }
  Status Truncate(std::uint64_t size) override {
    if (::ftruncate(fd_.get(), static_cast<off_t>(size)) != 0) {
      return Error::FromErrno(errno, fmt::format("truncate {} to {}", path_, size));
    }
    return {};
  }
  Result<std::uint64_t> Size() override { return Named(FileSize(fd_.get())); }
  Result<std::uint64_t> AllocatedBytes() override {
    struct stat st{};
    if (::fstat(fd_.get(), &st) != 0) return Error::FromErrno(errno, "fstat " + path_);
    return static_cast<std::uint64_t>(st.st_blocks) * 512;
  }

 private:
  template <class T>
  Result<T> Named(Result<T> result) const {
    if (!result.ok()) return std::move(result).error().WithContext(path_);
    return result;
  }

  const UniqueFd fd_;
  const std::string path_;
};

class RealFiles final : public CacheFiles {
 public:
  Result<std::unique_ptr<CacheFile>> Open(const std::string& path) override {
    // O_NOFOLLOW: nothing in a cache directory is a link, unless somebody plays tricks.
    DAVIT_TRY_ASSIGN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_NOFOLLOW));
    return std::make_unique<RealFile>(std::move(fd), path);
  }
  Status Remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
      return Error::FromErrno(errno, "remove " + path);
    }
    return {};
  }
  Result<std::uint64_t> FreeBytes(const std::string& path) override {
    struct statvfs st{};
    if (::statvfs(path.c_str(), &st) != 0) return Error::FromErrno(errno, "statvfs " + path);
    return static_cast<std::uint64_t>(st.f_bavail) * st.f_frsize;
  }
};

}  // namespace

CacheFiles& CacheFiles::Real() {
  static RealFiles files;
  return files;
}

}  // namespace davit::storage
