#pragma once
// RAFS v6: what a bootstrap adds to EROFS. Layout: docs/formats/rafs.md, "RAFS v6 bootstrap".

#include <cstddef>
#include <cstdint>
#include <optional>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "common/codec/codec.h"
#include "common/digest/digest.h"
#include "erofs/format/erofs_fs.h"

namespace davit::rafs::v6 {

inline constexpr std::uint32_t kBlockSize = 4096;
inline constexpr std::size_t kExtensionOffset = 1152;
inline constexpr std::size_t kDeviceTableOffset = 1408;
inline constexpr std::uint32_t kFeatureCompatRafsV6 = 0x4000'0000;
inline constexpr std::uint32_t kMaxBlobs = 254;
inline constexpr std::uint32_t kMinChunkSize = 4096;
inline constexpr std::uint32_t kMaxChunkSize = 16U << 20;
inline constexpr std::uint32_t kMaxChunksPerBlob = 1U << 24;
inline constexpr std::uint64_t kMappedAlign = 512U << 10;  // of mapped_blkaddr, as builders do now
inline constexpr std::uint16_t kRootNid = 128;

/// Superblock flags of the extension.
enum SuperFlag : std::uint64_t {
  kFlagCompressNone = 0x001,
  kFlagCompressLz4 = 0x002,
  kFlagDigestBlake3 = 0x004,
  kFlagDigestSha256 = 0x008,
  kFlagExplicitUidGid = 0x010,
  kFlagHasXattr = 0x020,
  kFlagCompressGzip = 0x040,
  kFlagCompressZstd = 0x080,
  kFlagInlinedChunkDigest = 0x100,
  kFlagTarfs = 0x200,
  kFlagEncryptNone = 0x0100'0000,
  kFlagEncryptXts128 = 0x0200'0000,
};

struct SuperExtension {
  std::uint64_t flags, blob_table_offset;
  std::uint32_t blob_table_size, chunk_size;
  std::uint64_t chunk_table_offset, chunk_table_size, prefetch_table_offset;
  std::uint32_t prefetch_table_size, pad;
  std::uint8_t reserved[200];
};
static_assert(sizeof(SuperExtension) == 256 && offsetof(SuperExtension, prefetch_table_size) == 48);

struct BlobTableEntry {
  std::uint8_t blob_id[64];
  std::uint32_t blob_index, chunk_size, chunk_count, compressor, digester, features;
  std::uint64_t compressed_size, uncompressed_size;
  std::uint32_t toc_size, ci_compressor;
  std::uint64_t ci_offset, ci_compressed_size, ci_uncompressed_size;
  std::uint8_t toc_digest[32], meta_digest[32];
  std::uint64_t meta_size, cipher_iv_high;
  std::uint32_t cipher;
  std::uint8_t reserved[36];
};
static_assert(sizeof(BlobTableEntry) == 256 && offsetof(BlobTableEntry, toc_digest) == 136 &&
              offsetof(BlobTableEntry, cipher) == 216);

/// Chunk record of the bootstrap's chunk table (shared with v5).
struct ChunkRecord {
  std::uint8_t digest[32];
  std::uint32_t blob_index, flags, compressed_size, uncompressed_size;
  std::uint64_t compressed_offset, uncompressed_offset, file_offset;
  std::uint32_t chunk_index, crc32c;
};
static_assert(sizeof(ChunkRecord) == 80);
enum ChunkFlag : std::uint32_t {
  kChunkCompressed = 1,
  kChunkHole = 2,
  kChunkEncrypted = 4,
  kChunkBatch = 8,
  kChunkHasCrc32c = 0x10,
};

/// A file's index entry, split into RAFS's meaning.
struct FileChunk {
  std::uint32_t blob_index;   // position in the blob table
  std::uint32_t chunk_index;  // in the blob's CI
  std::uint64_t blob_offset;  // uncompressed, bytes
};
/// Nothing for a hole or the bootstrap device (blob number 0).
std::optional<FileChunk> DecodeChunkIndex(const erofs::ChunkIndex& index, std::uint32_t block_bits);
erofs::ChunkIndex EncodeChunkIndex(const FileChunk& chunk, std::uint32_t block_bits);

/// Superblock and extension after every check that needs only the file's size: magics, feature
/// words, exactly one compressor and digester, table positions. kUnsupported names tarfs,
/// encryption and unknown flags; kDataLoss everything malformed.
struct Super {
  erofs::SuperBlock erofs;
  SuperExtension ext;
  codec::Algorithm compressor;
  DigestAlgorithm digester;
  bool explicit_uid_gid, has_xattr;
  std::uint64_t meta_offset() const { return std::uint64_t{erofs.meta_blkaddr} << erofs.blkszbits; }
  std::uint32_t blob_count() const { return ext.blob_table_size / sizeof(BlobTableEntry); }
};
Result<Super> ParseSuper(Bytes image);
/// True when the bytes look like a v6 bootstrap (magic and marker).
bool LooksLikeV6(Bytes head);

}  // namespace davit::rafs::v6
