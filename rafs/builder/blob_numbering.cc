#include "rafs/builder/blob_numbering.h"

#include <fmt/format.h>

#include <map>

#include "common/base/bytes.h"
#include "rafs/layout/v6.h"

namespace davit::rafs {
namespace {

class Numberer {
 public:
  Numberer(const BlobSet& blobs, std::uint32_t chunk_size)
      : blobs_(blobs), chunk_size_(chunk_size) {
    numbering_.table_of.assign(blobs.blobs.size(), BlobNumbering::kUnused);
  }

  Status Visit(const std::string& name, const TreeInode& file) {
    if (file.chunks.size() != DivUp(file.size, chunk_size_)) {
      return Error(Code::kInvalidArgument,
                   fmt::format("file '{}' has {} bytes but {} chunks of {} bytes", name, file.size,
                               file.chunks.size(), chunk_size_))
          .WithHint("all layers must have been built with the same chunk size");
    }
    for (const ChunkRef& ref : file.chunks) {
      if (ref.blob >= blobs_.blobs.size() || ref.chunk >= blobs_.blobs[ref.blob].chunks.size() ||
          blobs_.blobs[ref.blob].chunks[ref.chunk].size == 0) {
        return Error(Code::kInvalidArgument,
                     fmt::format("file '{}' refers to chunk {} of blob {}, which is not known",
                                 name, ref.chunk, ref.blob));
      }
      if (numbering_.table_of[ref.blob] == BlobNumbering::kUnused) DAVIT_TRY(Use(ref.blob));
    }
    return {};
  }

  BlobNumbering Take() { return std::move(numbering_); }

 private:
  Status Use(std::uint32_t blob) {
    // Equal layers make equal blobs; a device table must not list one twice.
    const auto [known, fresh] = by_id_.emplace(blobs_.blobs[blob].id.value,
                                               static_cast<std::uint32_t>(numbering_.used.size()));
    numbering_.table_of[blob] = known->second;
    if (!fresh) return {};
    numbering_.used.push_back(blob);
    if (numbering_.used.size() > v6::kMaxBlobs) {
      return Error(Code::kInvalidArgument,
                   fmt::format("the image uses more than {} blobs", v6::kMaxBlobs))
          .WithHint("squash layers, or use a chunk dictionary with fewer blobs");
    }
    return {};
  }

  const BlobSet& blobs_;
  const std::uint32_t chunk_size_;
  BlobNumbering numbering_;
  std::map<std::string, std::uint32_t> by_id_;
};

}  // namespace

Result<BlobNumbering> NumberBlobs(const Tree& tree, const BlobSet& blobs,
                                  std::uint32_t chunk_size) {
  Numberer numberer(blobs, chunk_size);
  std::vector<const TreeInode*> level{tree.root.get()};
  while (!level.empty()) {
    std::vector<const TreeInode*> next;
    for (const TreeInode* dir : level) {
      for (const auto& [name, child] : dir->children) {
        if (child->IsRegular()) DAVIT_TRY(numberer.Visit(name, *child));
        if (child->IsDirectory()) next.push_back(child.get());
      }
    }
    level = std::move(next);
  }
  return numberer.Take();
}

}  // namespace davit::rafs
