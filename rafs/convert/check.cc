#include <fmt/format.h>
#include <sys/stat.h>

#include <map>

#include "common/base/fd.h"
#include "rafs/convert/blob_reader.h"
#include "rafs/convert/convert.h"
#include "rafs/convert/layer_stream.h"
#include "rafs/convert/source_image.h"

namespace davit::rafs {
namespace {

constexpr std::size_t kMaxProblems = 100;

class Checker {
 public:
  Checker(const Metadata& metadata, const BlobOpener& open, const StepProgress& progress)
      : metadata_(metadata), files_(metadata, open), progress_(progress) {}

  Result<CheckReport> Run(const Context& ctx) {
    const Status walked = Walk(metadata_, metadata_.root(),
                               [&](const std::string& path, const Attributes& a) -> Status {
                                 DAVIT_TRY(ctx.Check("check"));
                                 Note(path, CheckInode(a));
                                 return {};
                               });
    if (!walked.ok()) {
      if (walked.error().code() == Code::kCancelled ||
          walked.error().code() == Code::kDeadlineExceeded)
        return walked.error();
      Note("tree", walked);
    }
    for (const BlobRecord& blob : metadata_.blobs()) total_ += blob.ci.uncompressed_size;
    for (std::uint32_t blob = 0; blob < metadata_.blobs().size(); ++blob) {
      DAVIT_TRY(CheckBlob(ctx, blob));
    }
    CheckExtents(ctx);
    return std::move(report_);
  }

 private:
  void Note(const std::string& where, const Status& status) {
    if (status.ok()) return;
    if (report_.problems.size() < kMaxProblems) {
      report_.problems.push_back(where + ": " + status.error().ToString());
    }
  }

  Status CheckInode(const Attributes& a) {
    ++report_.inodes;
    if (S_ISLNK(a.mode)) DAVIT_TRY(metadata_.ReadLink(a.id));
    DAVIT_TRY(metadata_.ListXattrs(a.id, [](std::string_view, Bytes) {}));
    if (S_ISREG(a.mode)) {
      ++report_.files;
      report_.bytes += a.size;
      regular_.emplace(a.id.value, a.size);
    }
    return {};
  }

  // Every chunk is fetched, decoded and compared with its digest. Only a registry that is away ends
  // the check; damaged chunks are counted and listed.
  Status CheckBlob(const Context& ctx, std::uint32_t blob) {
    auto reader = files_.Blob(ctx, blob);
    if (!reader.ok()) {
      if (reader.error().code() == Code::kUnavailable) return reader.error();
      Note(fmt::format("blob {}", blob), reader.error());
      return {};
    }
    for (std::uint32_t chunk = 0; chunk < (*reader)->map().chunk_count(); ++chunk) {
      DAVIT_TRY(ctx.Check("check"));
      ++report_.chunks;
      done_ += (*reader)->map().ChunkAt(chunk).size;
      if (progress_) progress_("chunks", done_, total_);
      const auto data = (*reader)->Chunk(ctx, chunk);
      if (data.ok()) continue;
      if (data.error().code() == Code::kUnavailable || data.error().code() == Code::kCancelled)
        return data.error();
      Note(fmt::format("blob {}", metadata_.blobs()[blob].id.value), data.error());
    }
    return {};
  }

  // Every file's pieces lie inside chunks of the blobs they name.
  void CheckExtents(const Context& ctx) {
    std::vector<Extent> extents;
    for (const auto& [inode, size] : regular_) {
      extents.clear();
      Status status = metadata_.Extents(InodeId{inode}, 0, size, extents);
      std::uint64_t covered = 0;
      for (const Extent& extent : extents) {
        covered += extent.length;
        if (status.ok() && extent.blob) status = CheckExtent(ctx, extent);
      }
      if (status.ok() && covered != size) {
        status = Error(Code::kDataLoss, fmt::format("chunks cover {} of {} bytes", covered, size));
      }
      Note(fmt::format("inode {}", inode), status);
    }
  }

  Status CheckExtent(const Context& ctx, const Extent& extent) {
    DAVIT_TRY_ASSIGN(BlobReader* const reader, files_.Blob(ctx, *extent.blob));
    const storage::BlobMap& map = reader->map();
    std::uint64_t offset = extent.blob_offset;
    const std::uint64_t end = offset + extent.length;
    for (std::uint32_t index = map.FindChunk(offset); offset < end; ++index) {
      if (index >= map.chunk_count() || map.ChunkAt(index).offset > offset) {
        return Error(Code::kDataLoss,
                     fmt::format("no chunk holds byte {} of blob {}", offset, *extent.blob));
      }
      offset = map.ChunkAt(index).offset + map.ChunkAt(index).size;
      // The last chunk of a file is followed by padding up to the next block.
      if (offset < end) offset = AlignUp(offset, metadata_.info().block_size);
    }
    return {};
  }

  const Metadata& metadata_;
  FileReader files_;
  CheckReport report_;
  std::map<std::uint64_t, std::uint64_t> regular_;
  const StepProgress& progress_;
  std::uint64_t done_ = 0, total_ = 0;
};

/// Compares a mounted-to-be tree with the source image's layers. Content is compared by chunk
/// digests: the source is chunked again with the image's own parameters.
class SourceComparison {
 public:
  SourceComparison(const Metadata& metadata, CheckReport& report, const StepProgress& progress)
      : metadata_(metadata), report_(report), progress_(progress) {}

  Status Run(const Context& ctx, registry::Repository& source, const SourceManifest& manifest) {
    DAVIT_TRY_ASSIGN(const TempDir work, TempDir::Create("davit-check"));
    BuildOptions options;
    options.chunk_size = metadata_.info().chunk_size;
    options.digester = metadata_.info().digester;
    options.compressor = codec::Algorithm::kNone;
    options.blob_toc = false;
    BlobSet blobs;
    Tree tree = EmptyTree();
    for (std::size_t i = 0; i < manifest.manifest.layers.size(); ++i) {
      DAVIT_TRY(CheckLayerType(manifest.manifest.layers[i]));
      DAVIT_TRY_ASSIGN(auto tar, codec::MakeDetectingDecoder(
                                     StreamLayer(ctx, source, manifest.manifest.layers[i])));
      const std::string step =
          fmt::format("source layer {}/{}", i + 1, manifest.manifest.layers.size());
      DAVIT_TRY_ASSIGN(Tree layer,
                       BuildTar(ctx, std::move(tar), static_cast<std::uint32_t>(i), options,
                                work.path(), blobs, nullptr, [&](std::uint64_t bytes) {
                                  if (progress_) progress_(step, bytes, 0);
                                }));
      DAVIT_TRY(ApplyLayer(tree, std::move(layer)));
    }
    DropWhiteouts(tree);
    DAVIT_TRY_ASSIGN(ours_, [&]() -> Result<BlobSet> {
      BlobSet set;
      DAVIT_TRY_ASSIGN(ours_tree_, TreeFromBootstrap(metadata_, set));
      return set;
    }());
    theirs_ = std::move(blobs);
    Compare("/", *tree.root, *ours_tree_.root);
    return {};
  }

 private:
  void Problem(const std::string& path, std::string text) {
    if (report_.problems.size() < kMaxProblems)
      report_.problems.push_back(path + ": " + std::move(text));
  }

  void Compare(const std::string& path, const TreeInode& source, const TreeInode& image) {
    if (source.mode != image.mode)
      Problem(path,
              fmt::format("mode {:o} in the source, {:o} in the image", source.mode, image.mode));
    if (source.uid != image.uid || source.gid != image.gid) Problem(path, "owner differs");
    if (source.mtime != image.mtime || source.mtime_nsec != image.mtime_nsec)
      Problem(path, "modification time differs");
    if (source.rdev != image.rdev) Problem(path, "device number differs");
    if (source.target != image.target) Problem(path, "link target differs");
    if (source.xattrs != image.xattrs) Problem(path, "extended attributes differ");
    if (source.IsRegular() && (source.size != image.size || !SameContent(source, image)))
      Problem(path, "content differs");
    for (const auto& [name, child] : source.children) {
      const auto it = image.children.find(name);
      if (it == image.children.end()) {
        Problem(path + name, "is missing in the image");
      } else {
        Compare(path + name + (child->IsDirectory() ? "/" : ""), *child, *it->second);
      }
    }
    for (const auto& [name, child] : image.children) {
      if (!source.children.contains(name)) Problem(path + name, "is not in the source");
    }
  }

  bool SameContent(const TreeInode& source, const TreeInode& image) const {
    if (source.chunks.size() != image.chunks.size()) return false;
    for (std::size_t i = 0; i < source.chunks.size(); ++i) {
      const StoredChunk* a = Find(theirs_, source.chunks[i]);
      const StoredChunk* b = Find(ours_, image.chunks[i]);
      if (a == nullptr || b == nullptr || a->digest != b->digest) return false;
    }
    return true;
  }

  static const StoredChunk* Find(const BlobSet& set, const ChunkRef& ref) {
    if (ref.blob >= set.blobs.size() || ref.chunk >= set.blobs[ref.blob].chunks.size())
      return nullptr;
    return &set.blobs[ref.blob].chunks[ref.chunk];
  }

  const Metadata& metadata_;
  CheckReport& report_;
  const StepProgress& progress_;
  BlobSet ours_, theirs_;
  Tree ours_tree_;
};

}  // namespace

Result<CheckReport> CheckBootstrap(const Context& ctx, const Metadata& metadata,
                                   const BlobOpener& open_blob, const StepProgress& progress) {
  return Checker(metadata, open_blob, progress).Run(ctx);
}

Result<CheckReport> CheckImage(const Context& ctx, registry::Repository& repository,
                               const std::string& tag, const oci::Platform& platform,
                               registry::Repository* source, const std::string& source_tag,
                               const StepProgress& progress) {
  DAVIT_TRY_ASSIGN(const ImageRef image, FindImage(ctx, repository, tag, platform));
  DAVIT_TRY_ASSIGN(const TempDir work, TempDir::Create("davit-check"));
  DAVIT_TRY(FetchBootstrap(ctx, repository, image, work.path()));
  DAVIT_TRY_ASSIGN(const std::unique_ptr<Metadata> metadata, OpenBootstrap(work.path()));
  auto open = [&](const BlobRecord& record) -> Result<std::shared_ptr<storage::BlobSource>> {
    oci::Descriptor descriptor;
    descriptor.media_type = kMediaTypeBlob;
    descriptor.digest = "sha256:" + record.id.value;
    for (const oci::Descriptor& layer : image.parsed.layers) {
      if (layer.digest == descriptor.digest) descriptor = layer;
    }
    return repository.OpenBlob(descriptor);
  };
  DAVIT_TRY_ASSIGN(CheckReport report, CheckBootstrap(ctx, *metadata, open, progress));
  if (source != nullptr) {
    ConvertOptions select;
    select.platforms = {platform};
    DAVIT_TRY_ASSIGN(const auto manifests, SelectManifests(ctx, *source, source_tag, select));
    DAVIT_TRY(SourceComparison(*metadata, report, progress).Run(ctx, *source, manifests.front()));
  }
  return report;
}

}  // namespace davit::rafs
