// An image against the OCI image that it was made of.

#include <fmt/format.h>

#include <string>
#include <unordered_map>

#include "common/base/fd.h"
#include "rafs/convert/convert.h"
#include "rafs/convert/layer_stream.h"
#include "rafs/convert/source_image.h"

namespace davit::rafs {
namespace {

// Content is compared by chunk digests: the source is chunked again with the image's own
// parameters.
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
    DAVIT_TRY_ASSIGN(const Tree ours, TreeFromBootstrap(metadata_, ours_));
    theirs_ = std::move(blobs);
    Compare("/", *tree.root, *ours.root);
    return {};
  }

 private:
  void Problem(const std::string& path, std::string text) {
    report_.Add(path + ": " + std::move(text));
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
    CompareLinks(path, source, image);
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

  void CompareLinks(const std::string& path, const TreeInode& source, const TreeInode& image) {
    if (!source.IsRegular() || !image.IsRegular()) return;
    const std::string& theirs = source_names_.try_emplace(&source, path).first->second;
    const std::string& ours = image_names_.try_emplace(&image, path).first->second;
    if (theirs == ours) return;
    const auto what = [&](const std::string& first) {
      return first == path ? std::string("a file of its own") : "a hard link to " + first;
    };
    Problem(path, fmt::format("{} in the source, {} in the image", what(theirs), what(ours)));
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
  // The first name of each file that was met, in both trees: of hard links these are the same.
  std::unordered_map<const TreeInode*, std::string> source_names_, image_names_;
};

}  // namespace

Status CompareWithSource(const Context& ctx, const Metadata& metadata, registry::Repository& source,
                         const std::string& source_tag, const oci::Platform& platform,
                         CheckReport& report, const StepProgress& progress) {
  ConvertOptions select;
  select.platforms = {platform};
  DAVIT_TRY_ASSIGN(const auto manifests, SelectManifests(ctx, source, source_tag, select));
  return SourceComparison(metadata, report, progress).Run(ctx, source, manifests.front());
}

}  // namespace davit::rafs
