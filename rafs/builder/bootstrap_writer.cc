// A bootstrap is planned completely (sizes, places, numbers) and then filled in one buffer.

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "rafs/builder/blob_numbering.h"
#include "rafs/builder/blob_writer.h"
#include "rafs/builder/dirent_block.h"
#include "rafs/builder/inode_plan.h"
#include "rafs/builder/markers.h"
#include "rafs/builder/xattr_block.h"
#include "rafs/layout/v6.h"

namespace davit::rafs {
namespace {

constexpr std::uint64_t kBlock = v6::kBlockSize;

struct ChunkPosition {
  std::uint32_t blob, chunk;  // table position, index in the blob
};

class Writer {
 public:
  Writer(const Tree& tree, const BlobSet& blobs, const BuildOptions& options,
         BlobNumbering numbering, InodePlan plan)
      : tree_(tree),
        blobs_(blobs),
        options_(options),
        numbering_(std::move(numbering)),
        plan_(std::move(plan)) {}

  Result<Bootstrap> Write() {
    CollectChunks();
    CollectPrefetch();
    PlaceTables();
    image_.assign(size_, '\0');
    DAVIT_TRY(WriteDevices());
    WriteBlobTable();
    WriteSuper();
    if (!prefetch_.empty()) Put(prefetch_offset_, prefetch_.data(), prefetch_.size() * 4);
    for (std::size_t i = 0; i < plan_.inodes().size(); ++i) {
      WriteInode(plan_.inodes()[i], static_cast<std::uint32_t>(i + 1));
    }
    WriteChunkTable();
    return Bootstrap{std::move(image_), std::move(numbering_.used)};
  }

 private:
  const BuiltBlob& BlobAt(std::uint32_t table) const {
    return blobs_.blobs[numbering_.used[table]];
  }
  std::uint32_t blob_count() const { return static_cast<std::uint32_t>(numbering_.used.size()); }

  // Every chunk of the blobs, not only those that files of this tree use: whoever fetches a whole
  // blob can then verify all of it.
  void CollectChunks() {
    for (std::uint32_t b = 0; b < blob_count(); ++b) {
      const auto& chunks = BlobAt(b).chunks;
      for (std::uint32_t c = 0; c < chunks.size(); ++c) {
        if (chunks[c].size != 0) chunks_.push_back({b, c});
      }
    }
    std::sort(chunks_.begin(), chunks_.end(), [&](ChunkPosition x, ChunkPosition y) {
      const Digest& dx = BlobAt(x.blob).chunks[x.chunk].digest;
      const Digest& dy = BlobAt(y.blob).chunks[y.chunk].digest;
      if (dx != dy) return dx < dy;
      return std::pair(x.blob, x.chunk) < std::pair(y.blob, y.chunk);
    });
  }

  void CollectPrefetch() {
    std::vector<std::string_view> taken;
    for (const std::string& path : options_.prefetch) {
      // A directory stands for all below it.
      const bool covered = std::any_of(taken.begin(), taken.end(), [&](std::string_view t) {
        return path == t || (path.starts_with(t) && (t.ends_with('/') || path[t.size()] == '/'));
      });
      if (covered) continue;
      taken.push_back(path);
      const auto inode = FindPath(tree_, path);
      if (inode == nullptr) continue;
      prefetch_.push_back(static_cast<std::uint32_t>(plan_.NidOf(inode.get())));
    }
  }

  void PlaceTables() {
    blob_table_offset_ =
        AlignUp(v6::kDeviceTableOffset + blob_count() * sizeof(erofs::DeviceSlot), kBlock);
    if (blob_count() == 0) {
      prefetch_.clear();  // nothing to fetch
    } else {
      prefetch_offset_ = blob_table_offset_ + blob_count() * sizeof(v6::BlobTableEntry);
      meta_offset_ = AlignUp(prefetch_offset_ + prefetch_.size() * 4, kBlock);
    }
    chunk_table_offset_ = meta_offset_ + plan_.size();
    size_ = AlignUp(chunk_table_offset_ + chunks_.size() * sizeof(v6::ChunkRecord), kBlock);
  }

  Status WriteDevices() {
    std::uint64_t position = size_;
    for (std::uint32_t b = 0; b < blob_count(); ++b) {
      const BuiltBlob& blob = BlobAt(b);
      position = AlignUp(position, v6::kMappedAlign);
      const std::uint64_t blocks = blob.uncompressed_size / kBlock;
      if (blob.id.value.size() != 64 || blocks == 0 || position / kBlock + blocks > UINT32_MAX) {
        return Error(Code::kInvalidArgument,
                     fmt::format("blob '{}' with {} bytes of data does not fit: all blobs of an "
                                 "image hold at most 16 TiB",
                                 blob.id.value, blob.uncompressed_size))
            .WithHint("split the content into several images");
      }
      erofs::DeviceSlot slot{};
      std::memcpy(slot.tag, blob.id.value.data(), sizeof slot.tag);
      slot.blocks = static_cast<std::uint32_t>(blocks);
      slot.mapped_blkaddr = static_cast<std::uint32_t>(position / kBlock);
      Put(v6::kDeviceTableOffset + b * sizeof slot, &slot, sizeof slot);
      device_blocks_ += blocks;
      position += blocks * kBlock;
    }
    return {};
  }

  void WriteBlobTable() {
    for (std::uint32_t b = 0; b < blob_count(); ++b) {
      const BuiltBlob& blob = BlobAt(b);
      v6::BlobTableEntry entry{};
      std::memcpy(entry.blob_id, blob.id.value.data(), sizeof entry.blob_id);
      entry.blob_index = b;
      entry.chunk_size = options_.chunk_size;
      entry.chunk_count = blob.ci_header.record_count;
      entry.compressor = static_cast<std::uint32_t>(options_.compressor);
      entry.digester = static_cast<std::uint32_t>(options_.digester);
      entry.features = blob.features;
      // Only for the blob that this bootstrap will be inside, which has no name yet. Else readers
      // would put the name of the bootstrap's own file in place of the blob's id.
      if (blob.id.value != UnnamedBlob().value) entry.features &= ~storage::kBlobInlinedMeta;
      entry.compressed_size = blob.compressed_size;
      entry.uncompressed_size = blob.uncompressed_size;
      entry.toc_size = static_cast<std::uint32_t>(blob.toc_size);
      entry.ci_compressor = blob.ci_header.compressor;
      entry.ci_offset = blob.ci_header.offset;
      entry.ci_compressed_size = blob.ci_header.compressed_size;
      entry.ci_uncompressed_size = blob.ci_header.uncompressed_size;
      std::memcpy(entry.toc_digest, blob.toc_digest.bytes.data(), sizeof entry.toc_digest);
      Put(blob_table_offset_ + b * sizeof entry, &entry, sizeof entry);
    }
  }

  std::uint64_t Flags() const {
    std::uint64_t flags = v6::kFlagEncryptNone;
    switch (options_.compressor) {
      case codec::Algorithm::kNone:
        flags |= v6::kFlagCompressNone;
        break;
      case codec::Algorithm::kLz4Block:
        flags |= v6::kFlagCompressLz4;
        break;
      case codec::Algorithm::kGzip:
        flags |= v6::kFlagCompressGzip;
        break;
      case codec::Algorithm::kZstd:
        flags |= v6::kFlagCompressZstd;
        break;
    }
    flags |= options_.digester == DigestAlgorithm::kBlake3 ? v6::kFlagDigestBlake3
                                                           : v6::kFlagDigestSha256;
    if (options_.keep_uid_gid) flags |= v6::kFlagExplicitUidGid;
    if (plan_.has_xattrs()) flags |= v6::kFlagHasXattr;
    bool digests = blob_count() > 0;
    for (std::uint32_t b = 0; b < blob_count(); ++b) {
      digests = digests && (BlobAt(b).features & storage::kBlobInlinedDigest) != 0;
    }
    if (digests) flags |= v6::kFlagInlinedChunkDigest;
    return flags;
  }

  void WriteSuper() {
    erofs::SuperBlock super{};
    super.magic = erofs::kMagic;
    super.feature_compat = v6::kFeatureCompatRafsV6;
    super.blkszbits = 12;
    super.root_nid = static_cast<std::uint16_t>(plan_.NidOf(tree_.root.get()));
    super.inos = plan_.inodes().size();
    super.blocks = static_cast<std::uint32_t>(device_blocks_);
    super.meta_blkaddr = static_cast<std::uint32_t>(meta_offset_ / kBlock);
    super.feature_incompat =
        erofs::kFeatureIncompatChunkedFile | erofs::kFeatureIncompatDeviceTable;
    super.extra_devices = static_cast<std::uint16_t>(blob_count());
    super.devt_slotoff = v6::kDeviceTableOffset / sizeof(erofs::DeviceSlot);
    Put(erofs::kSuperOffset, &super, sizeof super);

    v6::SuperExtension ext{};
    ext.flags = Flags();
    ext.blob_table_offset = blob_table_offset_;
    ext.blob_table_size = blob_count() * static_cast<std::uint32_t>(sizeof(v6::BlobTableEntry));
    ext.chunk_size = options_.chunk_size;
    ext.chunk_table_offset = chunk_table_offset_;
    ext.chunk_table_size = chunks_.size() * sizeof(v6::ChunkRecord);
    if (!prefetch_.empty()) {
      ext.prefetch_table_offset = prefetch_offset_;
      ext.prefetch_table_size = static_cast<std::uint32_t>(prefetch_.size() * 4);
    }
    Put(v6::kExtensionOffset, &ext, sizeof ext);
  }

  void WriteInode(const PlannedInode& planned, std::uint32_t number) {
    const TreeInode& inode = *planned.inode;
    const std::uint64_t at = meta_offset_ + planned.offset;
    auto layout = erofs::Layout::kPlain;
    erofs::InodeExtended disk{};
    if (inode.IsRegular()) {
      layout = erofs::Layout::kChunkBased;
      disk.i_u = ChunkFormat(inode);
    } else if (S_ISCHR(inode.mode) || S_ISBLK(inode.mode)) {
      disk.i_u = inode.rdev;
    } else if (planned.size != 0) {
      if (planned.inline_tail) layout = erofs::Layout::kInline;
      const std::uint64_t data = planned.data_offset != 0 ? meta_offset_ + planned.data_offset : at;
      disk.i_u = static_cast<std::uint32_t>(data / kBlock);
    }
    // Bit 0: extended inode; the data layout follows.
    disk.format = static_cast<std::uint16_t>(1U | (static_cast<unsigned>(layout) << 1));
    disk.xattr_icount = XattrInodeCount(planned.xattr_bytes);
    disk.mode = static_cast<std::uint16_t>(inode.mode);
    disk.size = planned.size;
    disk.ino = number;
    disk.uid = options_.keep_uid_gid ? inode.uid : 0;
    disk.gid = options_.keep_uid_gid ? inode.gid : 0;
    disk.mtime = static_cast<std::uint64_t>(inode.mtime);
    disk.mtime_nsec = inode.mtime_nsec;
    disk.nlink = planned.nlink;
    Put(at, &disk, sizeof disk);
    const std::uint64_t xattrs = at + sizeof disk;
    WriteXattrBlock(inode.xattrs, Span(xattrs, planned.xattr_bytes));
    const std::uint64_t tail = xattrs + planned.xattr_bytes;
    if (inode.IsRegular()) {
      WriteChunks(inode, AlignUp(tail, sizeof(erofs::ChunkIndex)));
    } else if (inode.IsDirectory()) {
      WriteData(planned, tail,
                EncodeDirectory(inode,
                                [&](std::string_view name, const TreeInode* child) -> DirentTarget {
                                  if (child == nullptr)
                                    child = name == "." ? &inode : planned.parent;
                                  return {plan_.NidOf(child), child->mode};
                                }));
    } else if (S_ISLNK(inode.mode)) {
      WriteData(planned, tail, inode.target);
    }
  }

  // Content of a directory or symlink: full blocks at their place, the rest behind the inode.
  void WriteData(const PlannedInode& planned, std::uint64_t tail_at, std::string_view data) {
    const std::size_t full = planned.inline_tail ? data.size() - data.size() % kBlock : data.size();
    Put(meta_offset_ + planned.data_offset, data.data(), full);
    if (planned.inline_tail) Put(tail_at, data.data() + full, data.size() - full);
  }

  // A file in one run of its blob is one extent to the kernel.
  std::uint32_t ChunkFormat(const TreeInode& file) const {
    bool one_run = file.size > options_.chunk_size;
    for (std::size_t i = 1; one_run && i < file.chunks.size(); ++i) {
      one_run = file.chunks[i].blob == file.chunks[0].blob &&
                OffsetOf(file.chunks[i]) == OffsetOf(file.chunks[i - 1]) + options_.chunk_size;
    }
    const std::uint64_t bytes =
        one_run ? std::bit_ceil(file.size) : std::uint64_t{options_.chunk_size};
    const auto exponent = static_cast<std::uint32_t>(std::countr_zero(bytes)) - 12;
    return erofs::kChunkFormatIndexes | exponent;
  }

  std::uint64_t OffsetOf(ChunkRef ref) const {
    return blobs_.blobs[ref.blob].chunks[ref.chunk].record.uncompressed_offset;
  }

  void WriteChunks(const TreeInode& file, std::uint64_t at) {
    for (const ChunkRef& ref : file.chunks) {
      const erofs::ChunkIndex index =
          v6::EncodeChunkIndex({.blob_index = numbering_.table_of[ref.blob],
                                .chunk_index = ref.chunk,
                                .blob_offset = OffsetOf(ref)},
                               12);
      Put(at, &index, sizeof index);
      at += sizeof index;
    }
  }

  void WriteChunkTable() {
    std::uint64_t at = chunk_table_offset_;
    for (const ChunkPosition& position : chunks_) {
      const StoredChunk& chunk = BlobAt(position.blob).chunks[position.chunk];
      v6::ChunkRecord record{};
      std::memcpy(record.digest, chunk.digest.bytes.data(), sizeof record.digest);
      record.blob_index = position.blob;
      record.flags = (chunk.record.compressed ? v6::kChunkCompressed : 0U) |
                     (chunk.record.batch ? v6::kChunkBatch : 0U) |
                     (chunk.crc32c ? v6::kChunkHasCrc32c : 0U);
      record.compressed_size = chunk.record.compressed_size;
      record.uncompressed_size = chunk.size;
      record.compressed_offset = chunk.record.compressed_offset;
      record.uncompressed_offset = chunk.record.uncompressed_offset;
      record.chunk_index = position.chunk;
      record.crc32c = chunk.crc32c.value_or(0);
      Put(at, &record, sizeof record);
      at += sizeof record;
    }
  }

  void Put(std::uint64_t offset, const void* data, std::size_t size) {
    if (size != 0) std::memcpy(image_.data() + offset, data, size);
  }
  MutableBytes Span(std::uint64_t offset, std::size_t size) {
    return std::as_writable_bytes(std::span(image_)).subspan(offset, size);
  }

  const Tree& tree_;
  const BlobSet& blobs_;
  const BuildOptions& options_;
  BlobNumbering numbering_;
  InodePlan plan_;
  std::vector<ChunkPosition> chunks_;
  std::vector<std::uint32_t> prefetch_;
  std::uint64_t blob_table_offset_ = 0, prefetch_offset_ = 0, meta_offset_ = 0;
  std::uint64_t chunk_table_offset_ = 0, size_ = 0, device_blocks_ = 0;
  std::string image_;
};

}  // namespace

Result<Bootstrap> WriteBootstrapOf(BootstrapKind kind, const Tree& tree, const BlobSet& blobs,
                                   const BuildOptions& options) {
  DAVIT_TRY(options.Validate());
  DAVIT_TRY_ASSIGN(const Tree plain, ExportMarkers(kind, tree));
  DAVIT_TRY_ASSIGN(BlobNumbering numbering, NumberBlobs(plain, blobs, options.chunk_size));
  DAVIT_TRY_ASSIGN(InodePlan plan, InodePlan::Make(plain));
  return Writer(plain, blobs, options, std::move(numbering), std::move(plan)).Write();
}

Result<Bootstrap> WriteBootstrap(const Tree& tree, const BlobSet& blobs,
                                 const BuildOptions& options) {
  return WriteBootstrapOf(BootstrapKind::kImage, tree, blobs, options);
}

}  // namespace davit::rafs
