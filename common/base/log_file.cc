#include "common/base/log_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

namespace davit::log {

Result<std::unique_ptr<RotatingFile>> RotatingFile::Open(const std::string& path,
                                                         std::uint64_t rotate_bytes, int keep) {
  std::unique_ptr<RotatingFile> out(new RotatingFile(path, rotate_bytes, keep));
  DAVIT_TRY(out->Reopen());
  return out;
}

Status RotatingFile::Reopen() {
  fd_.reset();
  const std::size_t slash = path_.find_last_of('/');
  if (slash != std::string::npos && slash > 0) {
    DAVIT_TRY(MakeDirectories(path_.substr(0, slash), 0755));
  }
  DAVIT_TRY_ASSIGN(fd_, OpenFile(path_, O_WRONLY | O_APPEND | O_CREAT | O_NOCTTY, 0640));
  return {};
}

bool RotatingFile::IsAtItsPath() const {
  struct stat ours{}, there{};
  return fd_ && ::fstat(fd_.get(), &ours) == 0 && ::stat(path_.c_str(), &there) == 0 &&
         ours.st_dev == there.st_dev && ours.st_ino == there.st_ino;
}

Status RotatingFile::Rotate() {
  bool moved = keep_ > 0;
  for (int i = keep_; i > 0; --i) {
    const std::string from = i == 1 ? path_ : fmt::format("{}.{}", path_, i - 1);
    if (::rename(from.c_str(), fmt::format("{}.{}", path_, i).c_str()) != 0 && errno != ENOENT) {
      moved = false;
    }
  }
  if (moved) return Reopen();
  if (::ftruncate(fd_.get(), 0) != 0) return davit::Error::FromErrno(errno, "truncate " + path_);
  return {};
}

Status RotatingFile::Append(std::string_view line) {
  if (!IsAtItsPath()) DAVIT_TRY(Reopen());
  struct stat st{};
  if (::fstat(fd_.get(), &st) != 0) return davit::Error::FromErrno(errno, "stat " + path_);
  if (S_ISREG(st.st_mode) && st.st_size > 0 &&
      static_cast<std::uint64_t>(st.st_size) + line.size() > rotate_bytes_) {
    DAVIT_TRY(Rotate());
    if (::fstat(fd_.get(), &st) != 0) return davit::Error::FromErrno(errno, "stat " + path_);
  }
  Status written = WriteFull(fd_.get(), AsBytes(line));
  if (written.ok()) return {};
  // What a full disk took of the line would be in the way of the next one.
  if (S_ISREG(st.st_mode) && ::ftruncate(fd_.get(), st.st_size) != 0) {
    return std::move(written).error().WithContext("a cut line stays in " + path_);
  }
  return std::move(written).error().WithContext(path_);
}

}  // namespace davit::log
