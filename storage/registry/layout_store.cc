#include "storage/registry/layout_store.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>

#include <cerrno>
#include <nlohmann/json.hpp>

#include "common/digest/digest.h"
#include "common/json/json.h"

namespace davit::registry {
namespace {

constexpr std::uint64_t kMaxIndex = 4ULL << 20;
constexpr std::string_view kLayoutFile = R"({"imageLayoutVersion":"1.0.0"})";
constexpr std::chrono::milliseconds kLockPoll{20};

/// An exclusive lock on `path`, gone with the descriptor (and with the process).
Result<UniqueFd> Lock(const Context& ctx, Clock& clock, const std::string& path) {
  DAVIT_TRY_ASSIGN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_NOFOLLOW, 0644));
  while (flock(fd.get(), LOCK_EX | LOCK_NB) != 0) {
    if (errno != EWOULDBLOCK && errno != EINTR) return Error::FromErrno(errno, "lock " + path);
    DAVIT_TRY(ctx.Check("wait for the lock " + path));
    clock.SleepFor(kLockPoll, ctx.stop);
  }
  return fd;
}

}  // namespace

Result<std::string> LayoutStore::BlobPath(const std::string& digest) const {
  DAVIT_TRY_ASSIGN(const Digest parsed, OciDigest::Parse(digest));
  return fmt::format("{}/blobs/sha256/{}", path_, parsed.Hex());
}

Result<oci::Index> LayoutStore::ReadIndex() const {
  Result<std::string> layout = ReadFile(path_ + "/oci-layout", 4096);
  if (!layout.ok() && layout.error().code() == Code::kNotFound) {
    return Error(Code::kNotFound,
                 fmt::format("{} is not an OCI layout: it has no file 'oci-layout'", path_))
        .WithHint("check the path; a layout is a directory with oci-layout, index.json and blobs");
  }
  if (!layout.ok()) return std::move(layout).error();
  DAVIT_TRY_ASSIGN(const nlohmann::json root, json::Parse(*layout, path_ + "/oci-layout", 4096));
  DAVIT_TRY_ASSIGN(const std::string version, json::NeedString(root, "imageLayoutVersion"));
  if (!version.starts_with("1."))
    return Error(Code::kUnsupported,
                 fmt::format("{} is an OCI layout of version {}, only 1 is known", path_,
                             version.substr(0, 20)));
  const std::string file = path_ + "/index.json";
  Result<std::string> text = ReadFile(file, kMaxIndex);
  if (!text.ok() && text.error().code() == Code::kNotFound) return oci::Index();
  if (!text.ok()) return std::move(text).error();
  Result<oci::Index> index = oci::ParseIndex(*text);
  if (!index.ok()) return std::move(index).error().WithContext(file);
  return index;
}

Status LayoutStore::Create() const {
  DAVIT_TRY(MakeDirectories(path_ + "/blobs/sha256", 0755));
  struct stat st{};
  const std::string file = path_ + "/oci-layout";
  if (lstat(file.c_str(), &st) == 0) return {};
  return WriteFileAtomic(file, AsBytes(kLayoutFile), 0644);
}

Status LayoutStore::EditIndex(const Context& ctx, const std::function<Status(oci::Index&)>& edit) {
  DAVIT_TRY(Create());
  DAVIT_TRY_ASSIGN(const UniqueFd lock, Lock(ctx, clock_, path_ + "/.index.lock"));
  DAVIT_TRY_ASSIGN(oci::Index index, ReadIndex());
  DAVIT_TRY(edit(index));
  index.media_type = std::string(oci::kIndex);
  const std::string text = oci::ToJson(index);
  if (text.size() > kMaxIndex)
    return Error(Code::kResourceExhausted,
                 fmt::format("{}/index.json would grow over {} bytes", path_, kMaxIndex));
  return WriteFileAtomic(path_ + "/index.json", AsBytes(text), 0644);
}

Result<UniqueFd> LayoutStore::OpenBlob(const std::string& digest) const {
  DAVIT_TRY_ASSIGN(const std::string file, BlobPath(digest));
  // Without O_NONBLOCK a fifo under a blob's name would hang the reader.
  Result<UniqueFd> fd = OpenFile(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  if (!fd.ok() && fd.error().code() == Code::kNotFound)
    return Error(Code::kNotFound, fmt::format("the layout {} has no blob {}", path_, digest));
  if (!fd.ok()) return fd;
  struct stat st{};
  if (fstat(fd->get(), &st) != 0) return Error::FromErrno(errno, "stat " + file);
  if (!S_ISREG(st.st_mode))
    return Error(Code::kDataLoss, fmt::format("{} is not a regular file", file));
  return fd;
}

Result<std::string> LayoutStore::ReadBlob(const std::string& digest, std::uint64_t limit) const {
  DAVIT_TRY_ASSIGN(const UniqueFd fd, OpenBlob(digest));
  DAVIT_TRY_ASSIGN(const std::uint64_t size, FileSize(fd.get()));
  if (size > limit)
    return Error(
        Code::kResourceExhausted,
        fmt::format("the blob {} of {} has {} bytes, more than {}", digest, path_, size, limit));
  std::string out(size, '\0');
  DAVIT_TRY_ASSIGN(const std::size_t got,
                   PreadFull(fd.get(), std::as_writable_bytes(std::span(out)), 0));
  out.resize(got);
  if (oci::DescribeContent("", out).digest == digest) return out;
  return Error(Code::kDataLoss, fmt::format("the blob {} of {} is damaged: its content has another "
                                            "digest",
                                            digest, path_))
      .WithHint("copy the image into the layout again");
}

Status LayoutStore::WriteBlob(const std::string& digest, Bytes content) const {
  DAVIT_TRY(Create());
  DAVIT_TRY_ASSIGN(const std::string file, BlobPath(digest));
  return WriteFileAtomic(file, content, 0644);
}

}  // namespace davit::registry
