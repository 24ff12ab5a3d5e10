#include <fmt/format.h>

#include <set>

#include "rafs/metadata/v6_reader.h"
#include "storage/blobmeta/toc.h"

namespace davit::rafs {
namespace {

using storage::BlobFeature;

constexpr std::uint64_t kMaxUncompressedBlob = 1ULL << 44;
constexpr std::uint64_t kMaxCompressedBlob = 1ULL << 40;
constexpr std::uint32_t kKnownIncompatFeatures = 0x0FFF;
constexpr std::size_t kIdLength = sizeof(v6::BlobTableEntry::blob_id);

Error Damaged(std::uint32_t position, std::string_view what) {
  return Error(Code::kDataLoss, fmt::format("blob table: entry {}: {}", position, what));
}

std::string IdText(const std::uint8_t (&field)[kIdLength]) {
  return std::string(AsText(std::as_bytes(std::span(field))));
}

Result<storage::BlobId> ReadId(const v6::BlobTableEntry& raw, std::uint32_t position,
                               const std::optional<storage::BlobId>& own_blob_id) {
  const std::string text = IdText(raw.blob_id);
  if (text == std::string(kIdLength, 'x')) {
    if (own_blob_id) return *own_blob_id;
    return Error(Code::kFailedPrecondition,
                 fmt::format("blob table: entry {} means the blob that holds this bootstrap, whose "
                             "id is not known here",
                             position))
        .WithHint("name the bootstrap's file by the id of the blob that it was taken from");
  }
  auto id = storage::BlobId::Parse(text);
  if (!id) return Damaged(position, id.error().message());
  return id;
}

Status CheckFeatures(const v6::BlobTableEntry& raw, std::uint32_t position) {
  const auto refuse = [&](std::string_view what) {
    return Error(Code::kUnsupported, fmt::format("blob {} of the image: {}", position, what))
        .WithHint("convert the image again without this feature");
  };
  const std::uint32_t features = raw.features;
  const std::uint32_t unknown = features & 0xFFFF & ~kKnownIncompatFeatures;
  if (unknown != 0) return refuse(fmt::format("unknown features {:#x}", unknown));
  if ((features & storage::kBlobZran) != 0) return refuse("zran (OCI reference images)");
  if ((features & storage::kBlobTarfs) != 0) return refuse("tarfs");
  if ((features & storage::kBlobEncrypted) != 0 || raw.cipher != 0) return refuse("encryption");
  if ((features & storage::kBlobExternal) != 0) return refuse("external blobs");
  if ((features & storage::kBlobSeparate) != 0) return refuse("chunk info in a separate blob");
  if ((features & storage::kBlobAligned) == 0) return Damaged(position, "chunks are not aligned");
  if ((features & storage::kBlobBatch) != 0 && (features & storage::kBlobCiV2) == 0) {
    return Damaged(position, "batches need V2 chunk info");
  }
  return {};
}

Status CheckSizes(const v6::BlobTableEntry& raw, std::uint32_t position, std::uint32_t chunk_size) {
  if (raw.blob_index != position) return Damaged(position, "it has another index");
  if (raw.chunk_size != chunk_size) {
    return Damaged(position,
                   fmt::format("chunk size {}, the image's is {}", raw.chunk_size, chunk_size));
  }
  if (raw.compressor > 3 || raw.ci_compressor > 3 || raw.digester > 1) {
    return Damaged(position, "unknown compressor or digest algorithm");
  }
  if (raw.chunk_count > v6::kMaxChunksPerBlob || raw.uncompressed_size > kMaxUncompressedBlob ||
      raw.compressed_size > kMaxCompressedBlob || raw.ci_offset > kMaxCompressedBlob) {
    return Damaged(position, "its sizes are beyond the format's limits");
  }
  if ((raw.features & storage::kBlobChunkDict) != 0) return {};
  const bool v2 = (raw.features & storage::kBlobCiV2) != 0;
  const bool batch = (raw.features & storage::kBlobBatch) != 0;
  const std::uint64_t records = std::uint64_t{raw.chunk_count} * (v2 ? 24U : 16U);
  if (batch ? raw.ci_uncompressed_size < records : raw.ci_uncompressed_size != records) {
    return Damaged(position, fmt::format("{} bytes of chunk info for {} chunks",
                                         raw.ci_uncompressed_size, raw.chunk_count));
  }
  if (raw.ci_compressed_size > raw.ci_uncompressed_size) {
    return Damaged(position, "its chunk info is larger when compressed");
  }
  return {};
}

/// Size of the region that holds chunk data and nothing else.
Result<std::uint64_t> DataSize(const v6::BlobTableEntry& raw, std::uint32_t position) {
  if ((raw.features & storage::kBlobCapTarToc) == 0) return raw.compressed_size;
  const std::uint64_t header =
      (raw.features & storage::kBlobTarHeader) != 0 ? storage::kTarHeaderSize : 0;
  if (raw.chunk_count == 0) return 0;
  if (raw.ci_offset < header) return Damaged(position, "its chunk info is inside the chunk data");
  return raw.ci_offset - header;
}

Result<BlobRecord> ReadEntry(const v6::BlobTableEntry& raw, std::uint32_t position,
                             std::uint32_t chunk_size,
                             const std::optional<storage::BlobId>& own_blob_id) {
  DAVIT_TRY(CheckFeatures(raw, position));
  DAVIT_TRY(CheckSizes(raw, position, chunk_size));
  BlobRecord blob;
  DAVIT_TRY_ASSIGN(blob.id, ReadId(raw, position, own_blob_id));
  blob.features = raw.features;
  blob.chunk_size = raw.chunk_size;
  blob.compressed_size = raw.compressed_size;
  blob.toc_size = raw.toc_size;
  std::memcpy(blob.toc_digest.bytes.data(), raw.toc_digest, sizeof raw.toc_digest);
  storage::CiExpectation& ci = blob.ci;
  ci.id = blob.id;
  ci.features = raw.features;
  ci.compressor = static_cast<codec::Algorithm>(raw.compressor);
  ci.ci_compressor = static_cast<codec::Algorithm>(raw.ci_compressor);
  ci.chunk_count = raw.chunk_count;
  ci.ci_offset = raw.ci_offset;
  ci.ci_compressed_size = raw.ci_compressed_size;
  ci.ci_uncompressed_size = raw.ci_uncompressed_size;
  ci.uncompressed_size = raw.uncompressed_size;
  DAVIT_TRY_ASSIGN(ci.data_size, DataSize(raw, position));
  ci.digest_algorithm = static_cast<DigestAlgorithm>(raw.digester);
  ci.chunk_size = raw.chunk_size;
  return blob;
}

}  // namespace

Result<std::vector<BlobRecord>> ReadV6BlobTable(Bytes image, const v6::Super& super,
                                                const std::optional<storage::BlobId>& own_blob_id) {
  std::vector<BlobRecord> blobs;
  std::set<std::string> ids;
  for (std::uint32_t i = 0; i < super.blob_count(); ++i) {
    DAVIT_TRY_ASSIGN(
        const auto raw,
        LoadAt<v6::BlobTableEntry>(
            image, super.ext.blob_table_offset + i * sizeof(v6::BlobTableEntry), "blob table"));
    DAVIT_TRY_ASSIGN(
        const auto device,
        LoadAt<erofs::DeviceSlot>(image, v6::kDeviceTableOffset + i * sizeof(erofs::DeviceSlot),
                                  "device table"));
    if (IdText(device.tag) != IdText(raw.blob_id)) {
      return Damaged(i, "the device table names another blob");
    }
    DAVIT_TRY_ASSIGN(BlobRecord blob, ReadEntry(raw, i, super.ext.chunk_size, own_blob_id));
    // Two entries of one blob would be two views of one cache file.
    if (!ids.insert(blob.id.value).second) return Damaged(i, "the blob is listed twice");
    blobs.push_back(std::move(blob));
  }
  return blobs;
}

}  // namespace davit::rafs
