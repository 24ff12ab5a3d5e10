#include "storage/cache/cache_dir.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>

#include "common/base/log.h"

namespace davit::storage {
namespace {

constexpr std::string_view kVersion = "davit cache 1\n";

Result<UniqueFd> Lock(const std::string& path) {
  DAVIT_TRY_ASSIGN(UniqueFd fd, OpenFile(path + "/lock", O_RDWR | O_CREAT | O_NOFOLLOW));
  if (::flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK) return Error::FromErrno(errno, "lock " + path);
    const Result<std::string> owner = ReadFile(path + "/lock", 64);
    const std::string pid =
        owner.ok() && !owner->empty() ? owner->substr(0, owner->find('\n')) : "?";
    return Error(Code::kFailedPrecondition,
                 fmt::format("cache directory {} is in use by process {}", path, pid))
        .WithHint("stop that process or configure another cache directory");
  }
  // Only information for people; the lock itself is what counts, and the kernel drops it when the
  // process ends, however it ends.
  const std::string pid = fmt::format("{}\n", ::getpid());
  if (::ftruncate(fd.get(), 0) == 0) static_cast<void>(PwriteFull(fd.get(), AsBytes(pid), 0));
  return fd;
}

Status CheckVersion(const std::string& path) {
  const std::string file = path + "/version";
  const Result<std::string> found = ReadFile(file, 256);
  if (!found.ok()) {
    if (found.error().code() != Code::kNotFound) return found.error();
    return WriteFileAtomic(file, AsBytes(kVersion));
  }
  if (*found == kVersion) return {};
  return Error(Code::kFailedPrecondition,
               fmt::format("cache directory {} has an unknown version", path))
      .WithHint("use the version of davit that made it, or remove the directory");
}

}  // namespace

Result<CacheDir> CacheDir::Take(const std::string& path) {
  DAVIT_TRY(MakeDirectories(path));
  DAVIT_TRY_ASSIGN(UniqueFd lock, Lock(path));
  DAVIT_TRY(CheckVersion(path));
  DAVIT_TRY(MakeDirectories(path + "/blobs"));
  return CacheDir(path, std::move(lock));
}

Result<std::vector<BlobId>> CacheDir::ListBlobs() const {
  DAVIT_TRY_ASSIGN(const std::vector<std::string> names, ListDirectory(path_ + "/blobs"));
  std::vector<BlobId> ids;
  for (const std::string& name : names) {
    if (Result<BlobId> id = BlobId::Parse(name); id.ok()) {
      ids.push_back(*std::move(id));
      continue;
    }
    const std::string from = path_ + "/blobs/" + name;
    const std::string to = path_ + "/lost/" + name;
    DAVIT_TRY(MakeDirectories(path_ + "/lost"));
    if (std::rename(from.c_str(), to.c_str()) != 0) {
      log::Warn("an unknown file in the cache directory is ignored", {{"path", from}});
    } else {
      log::Warn("an unknown file in the cache directory was moved aside",
                {{"from", from}, {"to", to}});
    }
  }
  return ids;
}

}  // namespace davit::storage
