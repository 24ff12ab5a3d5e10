#include "rafs/metadata/v6_reader.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include "common/base/fd.h"

namespace davit::rafs {
namespace {

/// One blob's view of the shared index.
class V6Digests final : public storage::ChunkDigests {
 public:
  V6Digests(std::shared_ptr<const V6ChunkIndex> index, std::uint32_t blob)
      : index_(std::move(index)), blob_(blob) {}
  Entry Get(std::uint32_t index) const override { return index_->Get(blob_, index); }

 private:
  std::shared_ptr<const V6ChunkIndex> index_;
  std::uint32_t blob_;
};

/// Why bytes are no v6 bootstrap, for what users most often mistake for one.
Error NotABootstrap(Bytes image) {
  constexpr std::string_view kV5Magic = "SFAR";
  if (AsText(image).starts_with(kV5Magic)) {
    return Error(Code::kUnsupported, "RAFS v5 images are not supported")
        .WithHint("convert the image to RAFS v6");
  }
  return Error(Code::kDataLoss, "not a RAFS bootstrap (no superblock found)");
}

}  // namespace

Result<std::unique_ptr<Metadata>> Metadata::Open(Bytes image, std::shared_ptr<const void> owner,
                                                 std::optional<storage::BlobId> own_blob_id) {
  const auto head = LoadAt<erofs::SuperBlock>(image, erofs::kSuperOffset, "superblock");
  if (AsText(image).starts_with("SFAR") || !head || head->magic != erofs::kMagic) {
    return NotABootstrap(image);
  }
  return V6Metadata::Open(image, std::move(owner), own_blob_id);
}

Result<std::unique_ptr<Metadata>> Metadata::OpenFile(const std::string& path,
                                                     std::optional<storage::BlobId> own_blob_id) {
  DAVIT_TRY_ASSIGN(auto file, MappedFile::Open(path));
  const Bytes bytes = file->bytes();
  auto metadata = Open(bytes, file, std::move(own_blob_id));
  if (!metadata) return std::move(metadata).error().WithContext(path);
  (*metadata)->mapped_ = std::move(file);
  return metadata;
}

Result<std::unique_ptr<Metadata>> V6Metadata::Open(
    Bytes image, std::shared_ptr<const void> owner,
    const std::optional<storage::BlobId>& own_blob_id) {
  std::unique_ptr<V6Metadata> self(new V6Metadata(image, std::move(owner)));
  DAVIT_TRY_ASSIGN(self->super_, v6::ParseSuper(image));
  DAVIT_TRY_ASSIGN(self->blobs_, ReadV6BlobTable(image, self->super_, own_blob_id));
  const v6::Super& super = self->super_;
  self->info_.version = "v6";
  self->info_.block_size = v6::kBlockSize;
  self->info_.chunk_size = super.ext.chunk_size;
  self->info_.inodes = super.erofs.inos;
  self->info_.compressor = super.compressor;
  self->info_.digester = super.digester;
  self->info_.has_xattrs = super.has_xattr;
  self->info_.explicit_uid_gid = super.explicit_uid_gid;
  DAVIT_TRY_ASSIGN(const Attributes root, self->Stat(self->root()));
  if (!S_ISDIR(root.mode)) return self->Damaged("the root is not a directory");
  return self;
}

Error V6Metadata::Damaged(std::string_view what) const {
  return Error(Code::kDataLoss, fmt::format("damaged bootstrap: {}", what))
      .WithHint("fetch or convert the image again");
}

Result<std::shared_ptr<const storage::ChunkDigests>> V6Metadata::Digests(std::uint32_t blob) const {
  if (blob >= blobs_.size()) {
    return Error(Code::kNotFound, fmt::format("the image has no blob {}", blob));
  }
  MutexLock lock(mutex_);
  if (chunk_index_ == nullptr) {
    DAVIT_TRY_ASSIGN(
        const Bytes table,
        SubBytes(image_, super_.ext.chunk_table_size == 0 ? 0 : super_.ext.chunk_table_offset,
                 super_.ext.chunk_table_size, "chunk table"));
    DAVIT_TRY_ASSIGN(chunk_index_, V6ChunkIndex::Build(table, owner_, blobs_));
  }
  return std::make_shared<V6Digests>(chunk_index_, blob);
}

std::vector<InodeId> V6Metadata::PrefetchList() const {
  std::vector<InodeId> out;
  for (std::uint32_t at = 0; at < super_.ext.prefetch_table_size; at += sizeof(std::uint32_t)) {
    const auto nid =
        LoadAt<std::uint32_t>(image_, super_.ext.prefetch_table_offset + at, "prefetch table");
    if (!nid || *nid == 0) break;
    // Only a hint: what does not lead to an inode is left out.
    if (Inode({*nid})) out.push_back({*nid});
  }
  return out;
}

}  // namespace davit::rafs
