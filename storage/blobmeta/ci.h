#pragma once
// The chunk compression info array ("CI", blob.meta) of a RAFS data blob: on-disk structs, reader
// and writer. Layout: docs/formats/rafs.md, "Data blob".

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/bytes.h"
#include "common/codec/codec.h"
#include "storage/blob/blob.h"

namespace davit::storage {

/// Blob feature bits (blob table entries and CI headers). The low 16 bits are incompatible ones.
enum BlobFeature : std::uint32_t {
  kBlobAligned = 0x0001,
  kBlobInlinedMeta = 0x0002,
  kBlobCiV2 = 0x0004,
  kBlobZran = 0x0008,
  kBlobSeparate = 0x0010,
  kBlobInlinedDigest = 0x0020,
  kBlobTarfs = 0x0040,
  kBlobBatch = 0x0080,
  kBlobEncrypted = 0x0100,
  kBlobChunkDict = 0x0200,
  kBlobPrefetch = 0x0400,
  kBlobExternal = 0x0800,
  kBlobTarHeader = 0x1000'0000,
  kBlobToc = 0x2000'0000,
  kBlobCapTarToc = 0x4000'0000,
};

inline constexpr std::uint32_t kCiMagic = 0xB10BB10B;
inline constexpr std::uint32_t kCiHeaderSize = 4096;

/// Header behind the CI array; the rest up to 4092 is zero, then the magic again.
struct CiHeader {
  std::uint32_t magic, features, compressor, record_count;
  std::uint64_t offset, compressed_size, uncompressed_size;
  std::uint64_t area_offset, area_size;
  std::uint32_t context_count;
  std::uint32_t pad;
};
static_assert(sizeof(CiHeader) == 64);

/// What the image's metadata says about a blob; the CI must agree with it.
struct CiExpectation {
  BlobId id;
  std::uint32_t features = 0;
  codec::Algorithm compressor = codec::Algorithm::kNone;  // of chunks
  codec::Algorithm ci_compressor = codec::Algorithm::kNone;
  std::uint32_t chunk_count = 0;
  std::uint64_t ci_offset = 0, ci_compressed_size = 0, ci_uncompressed_size = 0;
  std::uint64_t uncompressed_size = 0;  // of the blob
  std::uint64_t data_size = 0;          // compressed data region, for bounds
  DigestAlgorithm digest_algorithm = DigestAlgorithm::kBlake3;
  std::uint32_t chunk_size = 0;
};

/// What the image's metadata says about a chunk, by CI index. Thread-safe.
class ChunkDigests {
 public:
  /// Where a chunk lies in the uncompressed space. It has to be compared with the CI: otherwise a
  /// hostile CI could put a genuine chunk in the place of another one.
  struct Place {
    std::uint64_t offset = 0;
    std::uint32_t size = 0;
    bool operator==(const Place&) const = default;
  };
  struct Entry {
    std::optional<Digest> digest;
    std::optional<std::uint32_t> crc32c;
    std::optional<Place> place;
  };
  virtual ~ChunkDigests() = default;
  virtual Entry Get(std::uint32_t index) const = 0;
};

/// Decodes CI bytes as stored in a blob at ci_offset: `stored` is the (compressed) array followed
/// by the 4096-byte header. kDataLoss on any disagreement with `expect`. The result is the
/// uncompressed array (with batch area).
Result<std::string> DecodeStoredCi(Bytes stored, const CiExpectation& expect);
/// The same from the form of a bootstrap layer's `<id>.blob.meta`: uncompressed array, zero padding
/// to 4 KiB, header.
Result<std::string> DecodeLocalCi(Bytes file, const CiExpectation& expect);
/// The 4096-byte header block as it stands behind an array; sets both magics.
std::string EncodeCiHeader(const CiHeader& header);
/// The local form of an array, as DecodeLocalCi reads it.
std::string EncodeLocalCi(Bytes array, const CiHeader& header);

/// The map of a plain or batch blob (V1 and V2 records). Validates everything (see BlobMap), also
/// that each chunk is where `digests` says it is (kDataLoss otherwise).
/// `array` is the uncompressed CI, kept by the map. `digests` may be null (nothing to verify with:
/// the cache will refuse such a blob). zran, encrypted and tarfs blobs: kUnsupported, named.
Result<std::shared_ptr<const BlobMap>> MakeRafsBlobMap(std::string array,
                                                       const CiExpectation& expect,
                                                       std::shared_ptr<const ChunkDigests> digests);

/// One chunk as the builder writes it.
struct CiRecord {
  std::uint64_t compressed_offset = 0;
  std::uint32_t compressed_size = 0;      // 0 for batch members
  std::uint64_t uncompressed_offset = 0;  // 4 KiB aligned
  std::uint32_t uncompressed_size = 0;
  bool compressed = false;
  bool batch = false;
  std::uint32_t batch_index = 0, offset_in_batch = 0;
  std::optional<std::uint32_t> crc32c;  // V2 only
};
struct BatchContext {
  std::uint32_t compressed_size = 0, uncompressed_size = 0;
};
/// V1 unless there are batch contexts. kInvalidArgument when a field does not fit its bits.
Result<std::string> EncodeCiArray(const std::vector<CiRecord>& records,
                                  const std::vector<BatchContext>& batches);

}  // namespace davit::storage
