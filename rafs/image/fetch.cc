#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <set>
#include <thread>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/thread_pool.h"
#include "rafs/image/bootstrap_layer.h"
#include "rafs/image/byte_pipe.h"
#include "rafs/image/image.h"

namespace davit::rafs {
namespace {

constexpr mode_t kFileMode = 0600;
constexpr std::size_t kPipeBytes = 1U << 20;

std::string BootstrapPath(const std::string& directory) {
  return directory + "/" + std::string(kBootstrapName);
}
std::string BlobMetaPath(const std::string& directory, const storage::BlobId& id) {
  return directory + "/" + id.value + std::string(kBlobMetaSuffix);
}

/// Passes the layer on as it arrives; an error when it does not have its digest in the end.
Status Download(const Context& ctx, registry::Repository& repository, const oci::Descriptor& layer,
                BytePipe& pipe) {
  std::uint64_t done = 0;
  return repository.ReadBlob(ctx, layer, [&](Bytes data) -> Status {
    if (data.size() > layer.size - done) {
      return Error(Code::kDataLoss,
                   fmt::format("bootstrap layer {} is longer than announced", layer.digest));
    }
    done += data.size();
    pipe.Write(data);
    return {};
  });
}

/// Unpacks into `directory`; the ids of the blobs whose chunk info was in the layer.
Result<std::set<storage::BlobId>> Unpack(BytePipe& pipe, const std::string& directory) {
  std::set<storage::BlobId> metas;
  UniqueFd fd;  // of the file being written: the reader finishes one before the next
  const auto open = [&](const LayerFile& file) -> Result<storage::ByteSink> {
    if (file.blob) metas.insert(*file.blob);
    const std::string path =
        file.blob ? BlobMetaPath(directory, *file.blob) : BootstrapPath(directory);
    DAVIT_TRY_ASSIGN(fd, OpenFile(path, O_WRONLY | O_CREAT | O_EXCL, kFileMode));
    return storage::ByteSink([&fd](Bytes data) { return WriteFull(fd.get(), data); });
  };
  DAVIT_TRY(ReadBootstrapLayer(std::make_unique<PipeStream>(pipe), open));
  return metas;
}

Status Rename(const std::string& from, const std::string& to) {
  if (::rename(from.c_str(), to.c_str()) == 0) return {};
  return Error::FromErrno(errno, fmt::format("rename {} to {}", from, to));
}

/// Moves what was unpacked into place; image.boot is last and says that all is there.
Status Publish(const std::string& from, const std::string& to, const Metadata& metadata,
               const std::set<storage::BlobId>& metas) {
  for (const BlobRecord& blob : metadata.blobs()) {
    if (!metas.contains(blob.id)) continue;
    DAVIT_TRY(Rename(BlobMetaPath(from, blob.id), BlobMetaPath(to, blob.id)));
  }
  return Rename(BootstrapPath(from), BootstrapPath(to));
}

Status FetchInto(const Context& ctx, registry::Repository& repository, const ImageRef& image,
                 const std::string& directory) {
  if (image.bootstrap.size > kMaxBootstrapBytes) {
    return Error(Code::kResourceExhausted,
                 fmt::format("bootstrap layer {} has {} bytes, at most {} are accepted",
                             image.bootstrap.digest, image.bootstrap.size, kMaxBootstrapBytes));
  }
  DAVIT_TRY(MakeDirectories(directory));
  DAVIT_TRY_ASSIGN(const TempDir work, TempDir::Create("fetch", directory));
  BytePipe pipe(kPipeBytes);
  Result<std::set<storage::BlobId>> metas = std::set<storage::BlobId>{};
  Status downloaded;
  {
    const std::jthread unpacker([&] {
      SetThreadName("unpack");
      metas = Unpack(pipe, work.path());
    });
    downloaded = Download(ctx, repository, image.bootstrap, pipe);
    pipe.EndWriting(downloaded);
  }
  DAVIT_TRY(downloaded);
  if (!metas) return std::move(metas).error();
  // Opening it here means that what cannot be mounted is refused now, and never kept.
  DAVIT_TRY_ASSIGN(const auto metadata, Metadata::OpenFile(BootstrapPath(work.path())));
  return Publish(work.path(), directory, *metadata, *metas);
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

// Chunk info files are left out: one that a crash has damaged is noticed and replaced by a read of
// the blob (see MapLoader).
Status SyncBootstrap(const std::string& directory) { return SyncFile(BootstrapPath(directory)); }

Result<std::unique_ptr<Metadata>> OpenBootstrap(const std::string& directory) {
  return Metadata::OpenFile(BootstrapPath(directory));
}

}  // namespace davit::rafs
