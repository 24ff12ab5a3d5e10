#pragma once
// What a blob is: an immutable object in a remote store, read in *units* and verified in *chunks*.
//
// A unit is a compressed range that is fetched and decoded as one piece. A chunk is a verified
// piece of the blob's uncompressed address space. In a plain RAFS blob each chunk is a unit of its
// own; in a batch several chunks share one; with zran a unit is one gzip context; tarfs units are
// plain ranges. Whatever format comes later is one more BlobMap behind this header.

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "common/base/bytes.h"
#include "common/base/context.h"
#include "common/digest/digest.h"

namespace davit::storage {

/// Name of a blob in its store and in the node's cache: 64 lower-case hex characters (the sha256
/// of the stored object for everything in a registry).
struct BlobId {
  std::string value;
  /// kInvalidArgument unless it is 64 lower-case hex characters: ids become file names.
  static Result<BlobId> Parse(std::string_view text);
  auto operator<=>(const BlobId&) const = default;
};

/// Receives consecutive pieces of a range, on the caller's thread; may block; an error ends the
/// transfer and is returned from it.
using ByteSink = std::function<Status(Bytes)>;

/// How one read of a source is to be done, and who answered.
struct SourceRead {
  /// Do not ask this endpoint (it delivered damaged bytes) if another one is left.
  std::string avoid_endpoint;
  /// Out: the endpoint that answered ("https://mirror:5000").
  std::string served_by;
};

/// The longest time for which a server is left alone because it asked for that (Retry-After). One
/// that asks for more is not believed: it could lock a node out for ever.
inline constexpr std::chrono::seconds kMaxRetryAfter{600};

/// One remote blob. Thread-safe. Implementations do no retries beyond authentication and mirrors:
/// patience is the scheduler's.
class BlobSource {
 public:
  virtual ~BlobSource() = default;
  /// For messages: "registry.example/app@sha256:…".
  virtual std::string Describe() const = 0;
  /// Key of the place that limits apply to (host of the registry).
  virtual std::string Host() const = 0;
  /// Size of the stored object in bytes.
  virtual Result<std::uint64_t> Size(const Context& ctx) = 0;
  /// Streams exactly the range to `sink`. Never passes on a byte of a reply that is not that range
  /// (status, Content-Range and length are checked). On an error the sink may have seen a prefix.
  /// kUnavailable errors carry the server's Retry-After where it sent one, up to kMaxRetryAfter.
  virtual Status Read(const Context& ctx, ByteRange range, SourceRead& how,
                      const ByteSink& sink) = 0;
};

/// A compressed range that is fetched and decoded as one piece.
struct Unit {
  std::uint64_t compressed_offset = 0;
  std::uint32_t compressed_size = 0;    // > 0
  std::uint32_t uncompressed_size = 0;  // > 0, at most kMaxUnitBytes
};
inline constexpr std::uint32_t kMaxUnitBytes = 64U << 20;

/// A verified piece of the uncompressed address space.
struct Chunk {
  std::uint64_t offset = 0;  // in the blob's uncompressed address space
  std::uint32_t size = 0;    // > 0
  std::uint32_t unit = 0;
  std::uint32_t offset_in_unit = 0;  // offset_in_unit + size <= unit.uncompressed_size
  std::optional<Digest> digest;      // of the uncompressed bytes
  std::optional<std::uint32_t> crc32c;
};

/// Where everything lies in one blob. Immutable, thread-safe, validated when it was made: chunks
/// ascend by offset and do not overlap, units ascend by compressed offset, the chunks of a unit
/// are consecutive, everything is inside the blob.
class BlobMap {
 public:
  virtual ~BlobMap() = default;
  virtual DigestAlgorithm digest_algorithm() const = 0;
  /// End of the uncompressed address space; the size of the cache file.
  virtual std::uint64_t uncompressed_size() const = 0;
  /// End of the data region in the stored object.
  virtual std::uint64_t compressed_size() const = 0;
  virtual std::uint32_t chunk_count() const = 0;
  virtual std::uint32_t unit_count() const = 0;
  /// index < chunk_count().
  virtual Chunk ChunkAt(std::uint32_t index) const = 0;
  /// index < unit_count().
  virtual Unit UnitAt(std::uint32_t index) const = 0;
  /// First and past-the-end chunk of a unit.
  virtual std::pair<std::uint32_t, std::uint32_t> ChunksOfUnit(std::uint32_t unit) const = 0;
  /// The first chunk that ends after `offset`; chunk_count() when there is none. The address may
  /// lie in the padding before that chunk.
  virtual std::uint32_t FindChunk(std::uint64_t offset) const = 0;
  /// Decodes a unit into `out` (exactly its uncompressed size). kDataLoss for damaged input. Does
  /// not verify digests.
  virtual Status Decode(std::uint32_t unit, Bytes compressed, MutableBytes out) const = 0;
};

/// Compares a chunk's bytes with what its map says: the digest if there is one, else the CRC.
/// kDataLoss on a mismatch; kFailedPrecondition when there is nothing to compare with.
Status VerifyChunk(const BlobMap& map, const Chunk& chunk, Bytes data);

}  // namespace davit::storage
