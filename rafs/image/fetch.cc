#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <set>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "rafs/image/bootstrap_layer.h"
#include "rafs/image/image.h"

namespace davit::rafs {
namespace {

constexpr mode_t kFileMode = 0600;

std::string BootstrapPath(const std::string& directory) {
  return directory + "/" + std::string(kBootstrapName);
}
std::string BlobMetaPath(const std::string& directory, const storage::BlobId& id) {
  return directory + "/" + id.value + std::string(kBlobMetaSuffix);
}

class FileStream final : public codec::ByteStream {
 public:
  explicit FileStream(int fd) : fd_(fd) {}
  Result<std::size_t> Read(MutableBytes out) override {
    DAVIT_TRY_ASSIGN(const std::size_t n, PreadFull(fd_, out, offset_));
    offset_ += n;
    return n;
  }

 private:
  int fd_;
  std::uint64_t offset_ = 0;
};

/// The verified layer as a file: nothing of it is looked at before its digest was checked.
Result<UniqueFd> Download(const Context& ctx, registry::Repository& repository,
                          const oci::Descriptor& layer, const std::string& path) {
  if (layer.size > kMaxBootstrapBytes) {
    return Error(Code::kResourceExhausted,
                 fmt::format("bootstrap layer {} has {} bytes, at most {} are accepted",
                             layer.digest, layer.size, kMaxBootstrapBytes));
  }
  DAVIT_TRY_ASSIGN(UniqueFd fd, OpenFile(path, O_RDWR | O_CREAT | O_EXCL, kFileMode));
  std::uint64_t done = 0;
  DAVIT_TRY(repository.ReadBlob(ctx, layer, [&](Bytes data) -> Status {
    if (data.size() > layer.size - done) {
      return Error(Code::kDataLoss,
                   fmt::format("bootstrap layer {} is longer than announced", layer.digest));
    }
    done += data.size();
    return WriteFull(fd.get(), data);
  }));
  return fd;
}

/// Unpacks into `directory`; the ids of the blobs whose chunk info was in the layer.
Result<std::set<storage::BlobId>> Unpack(int layer_fd, const std::string& directory) {
  std::set<storage::BlobId> metas;
  UniqueFd fd;  // of the file being written: the reader finishes one before the next
  const auto open = [&](const LayerFile& file) -> Result<storage::ByteSink> {
    if (file.blob) metas.insert(*file.blob);
    const std::string path =
        file.blob ? BlobMetaPath(directory, *file.blob) : BootstrapPath(directory);
    DAVIT_TRY_ASSIGN(fd, OpenFile(path, O_WRONLY | O_CREAT | O_EXCL, kFileMode));
    return storage::ByteSink([&fd](Bytes data) { return WriteFull(fd.get(), data); });
  };
  DAVIT_TRY(ReadBootstrapLayer(std::make_unique<FileStream>(layer_fd), open));
  return metas;
}

Status Rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return {};
  return Error::FromErrno(errno, fmt::format("rename {} to {}", from, to));
}

/// Moves what was unpacked into place; image.boot is last and says that all is there. Only it is
/// made durable: a chunk info file that a crash has damaged is noticed and replaced by a read of
/// the blob (see MapLoader).
Status Publish(const std::string& from, const std::string& to, const Metadata& metadata,
               const std::set<storage::BlobId>& metas) {
  for (const BlobRecord& blob : metadata.blobs()) {
    if (!metas.contains(blob.id)) continue;
    DAVIT_TRY(Rename(BlobMetaPath(from, blob.id), BlobMetaPath(to, blob.id)));
  }
  const std::string bootstrap = BootstrapPath(from);
  DAVIT_TRY_ASSIGN(const UniqueFd fd, OpenFile(bootstrap, O_RDONLY));
  if (::fsync(fd.get()) != 0) return Error::FromErrno(errno, "sync " + bootstrap);
  DAVIT_TRY(Rename(bootstrap, BootstrapPath(to)));
  return SyncDirectory(to);
}

Status FetchInto(const Context& ctx, registry::Repository& repository, const ImageRef& image,
                 const std::string& directory) {
  DAVIT_TRY(MakeDirectories(directory));
  DAVIT_TRY_ASSIGN(const TempDir work, TempDir::Create("fetch", directory));
  DAVIT_TRY_ASSIGN(const UniqueFd layer,
                   Download(ctx, repository, image.bootstrap, work.path() + "/layer"));
  DAVIT_TRY_ASSIGN(const auto metas, Unpack(layer.get(), work.path()));
  // Opening it here means that what cannot be mounted is refused now, and never kept.
  DAVIT_TRY_ASSIGN(const auto metadata, Metadata::OpenFile(BootstrapPath(work.path())));
  return Publish(work.path(), directory, *metadata, metas);
}

}  // namespace

Status FetchBootstrap(const Context& ctx, registry::Repository& repository, const ImageRef& image,
                      const std::string& directory) {
  struct stat st{};
  if (::stat(BootstrapPath(directory).c_str(), &st) == 0) return {};
  auto status = FetchInto(ctx, repository, image, directory);
  if (!status && status.error().code() == Code::kDataLoss) {
    log::Warn("an image's metadata arrived damaged; it is fetched once more",
              {{"blob", image.bootstrap.digest}, {"error", status.error()}});
    status = FetchInto(ctx, repository, image, directory);
  }
  if (status) return {};
  return std::move(status).error().WithContext(
      fmt::format("bootstrap {} of {}", image.bootstrap.digest, repository.Describe()));
}

Result<std::unique_ptr<Metadata>> OpenBootstrap(const std::string& directory) {
  return Metadata::OpenFile(BootstrapPath(directory));
}

}  // namespace davit::rafs
