#include "rafs/layout/v6.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>

namespace davit::rafs::v6 {
namespace {

constexpr std::uint32_t kNoBlock = 0xFFFF'FFFF;
constexpr std::uint64_t kKnownFlags =
    kFlagCompressNone | kFlagCompressLz4 | kFlagDigestBlake3 | kFlagDigestSha256 |
    kFlagExplicitUidGid | kFlagHasXattr | kFlagCompressGzip | kFlagCompressZstd |
    kFlagInlinedChunkDigest | kFlagTarfs | kFlagEncryptNone | kFlagEncryptXts128;
/// Kept by the format for extensions that a reader may ignore.
constexpr std::uint64_t kIgnorableFlags = 0xFC00'0000;

Error Damaged(std::string_view what) {
  return Error(Code::kDataLoss, fmt::format("RAFS v6 superblock: {}", what));
}
Error Unsupported(std::string_view what) {
  return Error(Code::kUnsupported, fmt::format("RAFS v6 image: {}", what))
      .WithHint("convert the image again without this feature");
}

Status CheckErofs(const erofs::SuperBlock& sb, bool tarfs) {
  if (sb.magic != erofs::kMagic) return Damaged("no EROFS magic; this is not a v6 bootstrap");
  if ((sb.feature_compat & kFeatureCompatRafsV6) == 0) {
    return Damaged("the RAFS marker is missing; this is an EROFS image of another kind");
  }
  if (tarfs) return Unsupported("tarfs mode is not supported");
  if (sb.blkszbits != 12) return Damaged(fmt::format("block size 2^{}", sb.blkszbits));
  constexpr std::uint32_t kIncompat =
      erofs::kFeatureIncompatChunkedFile | erofs::kFeatureIncompatDeviceTable;
  if ((sb.feature_incompat & ~kIncompat) != 0) {
    return Unsupported(fmt::format("unknown EROFS features {:#x}", sb.feature_incompat));
  }
  if (sb.feature_incompat != kIncompat) {
    return Damaged(fmt::format("EROFS features are {:#x}", sb.feature_incompat));
  }
  if (sb.sb_extslots != 0 || sb.devt_slotoff * sizeof(erofs::DeviceSlot) != kDeviceTableOffset) {
    return Damaged("the device table is in an unusual place");
  }
  if (sb.inos == 0) return Damaged("no inodes");
  return {};
}

Result<codec::Algorithm> OneCompressor(std::uint64_t flags) {
  constexpr std::array<std::pair<std::uint64_t, codec::Algorithm>, 4> kAll{{
      {kFlagCompressNone, codec::Algorithm::kNone},
      {kFlagCompressLz4, codec::Algorithm::kLz4Block},
      {kFlagCompressGzip, codec::Algorithm::kGzip},
      {kFlagCompressZstd, codec::Algorithm::kZstd},
  }};
  std::optional<codec::Algorithm> found;
  for (const auto& [bit, algorithm] : kAll) {
    if ((flags & bit) == 0) continue;
    if (found) return Damaged("more than one compressor");
    found = algorithm;
  }
  if (!found) return Damaged("no compressor");
  return *found;
}

Result<DigestAlgorithm> OneDigester(std::uint64_t flags) {
  const bool blake3 = (flags & kFlagDigestBlake3) != 0;
  const bool sha256 = (flags & kFlagDigestSha256) != 0;
  if (blake3 == sha256) return Damaged("not exactly one digest algorithm");
  return blake3 ? DigestAlgorithm::kBlake3 : DigestAlgorithm::kSha256;
}

struct Table {
  std::string_view name;
  std::uint64_t offset = 0, size = 0;
  std::uint64_t align = 1, entry_size = 1;
};

/// Empty tables may be anywhere; others are whole entries, aligned, inside, without overlaps.
Status CheckTables(std::array<Table, 3> tables, std::uint64_t image_size) {
  for (const Table& t : tables) {
    if (t.size == 0) continue;
    const auto end = CheckedAdd(t.offset, t.size);
    if (t.offset < kBlockSize || t.offset % t.align != 0 || t.size % t.entry_size != 0 || !end ||
        *end > image_size) {
      return Damaged(fmt::format("{} ({:#x} +{:#x}) is misplaced in an image of {:#x} bytes",
                                 t.name, t.offset, t.size, image_size));
    }
  }
  std::ranges::sort(tables, {}, &Table::offset);
  std::uint64_t end = 0;
  for (const Table& t : tables) {
    if (t.size == 0) continue;
    if (t.offset < end) return Damaged(fmt::format("{} overlaps another table", t.name));
    end = t.offset + t.size;
  }
  return {};
}

Status CheckExtension(Super& super, std::uint64_t image_size) {
  SuperExtension& ext = super.ext;
  if (!std::has_single_bit(ext.chunk_size) || ext.chunk_size < kMinChunkSize ||
      ext.chunk_size > kMaxChunkSize) {
    return Damaged(fmt::format("chunk size {}", ext.chunk_size));
  }
  // Old builders noted a size without writing a table.
  if (ext.prefetch_table_offset == 0) ext.prefetch_table_size = 0;
  DAVIT_TRY(CheckTables({{{"blob table", ext.blob_table_offset, ext.blob_table_size, kBlockSize,
                           sizeof(BlobTableEntry)},
                          {"chunk table", ext.chunk_table_offset, ext.chunk_table_size, kBlockSize,
                           sizeof(ChunkRecord)},
                          {"prefetch table", ext.prefetch_table_offset, ext.prefetch_table_size, 1,
                           sizeof(std::uint32_t)}}},
                        image_size));
  if (super.blob_count() > kMaxBlobs) {
    return Damaged(fmt::format("{} blobs, at most {} are possible", super.blob_count(), kMaxBlobs));
  }
  if (super.erofs.extra_devices != super.blob_count()) {
    return Damaged(
        fmt::format("{} devices, but {} blobs", super.erofs.extra_devices, super.blob_count()));
  }
  const std::uint64_t devices_end =
      kDeviceTableOffset + super.erofs.extra_devices * sizeof(erofs::DeviceSlot);
  if (devices_end > image_size ||
      (ext.blob_table_size != 0 && devices_end > ext.blob_table_offset)) {
    return Damaged("the device table runs into the blob table");
  }
  return {};
}

}  // namespace

std::optional<FileChunk> DecodeChunkIndex(const erofs::ChunkIndex& index,
                                          std::uint32_t block_bits) {
  const std::uint32_t device = index.device_id & 0xFFU;
  if (device == 0 || index.blkaddr == kNoBlock) return std::nullopt;
  FileChunk chunk{};
  chunk.blob_index = device - 1;
  chunk.chunk_index = index.advise | (std::uint32_t{index.device_id} >> 8) << 16;
  chunk.blob_offset = std::uint64_t{index.blkaddr} << block_bits;
  return chunk;
}

erofs::ChunkIndex EncodeChunkIndex(const FileChunk& chunk, std::uint32_t block_bits) {
  erofs::ChunkIndex index{};
  index.advise = static_cast<std::uint16_t>(chunk.chunk_index & 0xFFFF);
  index.device_id = static_cast<std::uint16_t>((chunk.chunk_index >> 16 & 0xFF) << 8 |
                                               ((chunk.blob_index + 1) & 0xFF));
  index.blkaddr = static_cast<std::uint32_t>(chunk.blob_offset >> block_bits);
  return index;
}

Result<Super> ParseSuper(Bytes image) {
  Super super{};
  DAVIT_TRY_ASSIGN(super.erofs,
                   LoadAt<erofs::SuperBlock>(image, erofs::kSuperOffset, "RAFS v6 superblock"));
  DAVIT_TRY_ASSIGN(super.ext,
                   LoadAt<SuperExtension>(image, kExtensionOffset, "RAFS v6 superblock"));
  const std::uint64_t flags = super.ext.flags;
  DAVIT_TRY(CheckErofs(super.erofs, (flags & kFlagTarfs) != 0));
  if ((flags & ~(kKnownFlags | kIgnorableFlags)) != 0) {
    return Unsupported(fmt::format("unknown flags {:#x}", flags & ~kKnownFlags));
  }
  if ((flags & kFlagEncryptXts128) != 0) return Unsupported("encrypted blobs are not supported");
  if (image.size() % kBlockSize != 0) {
    return Damaged(fmt::format("{} bytes are no whole blocks; the file is cut off", image.size()));
  }
  DAVIT_TRY_ASSIGN(super.compressor, OneCompressor(flags));
  DAVIT_TRY_ASSIGN(super.digester, OneDigester(flags));
  super.explicit_uid_gid = (flags & kFlagExplicitUidGid) != 0;
  super.has_xattr = (flags & kFlagHasXattr) != 0;
  DAVIT_TRY(CheckExtension(super, image.size()));
  if (super.meta_offset() >= image.size()) return Damaged("the inodes are beyond the end");
  return super;
}

bool LooksLikeV6(Bytes head) {
  const auto sb = LoadAt<erofs::SuperBlock>(head, erofs::kSuperOffset, "superblock");
  return sb && sb->magic == erofs::kMagic && (sb->feature_compat & kFeatureCompatRafsV6) != 0;
}

}  // namespace davit::rafs::v6
