#pragma once
// Builds RAFS v6 images. Stages, each of its own file: source -> chunks (read, digest, look up,
// compress, in parallel) -> blob file -> tree -> bootstrap. The same input and options give the
// same bytes, whatever the number of threads.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/context.h"
#include "common/codec/codec.h"
#include "common/codec/stream.h"
#include "common/digest/digest.h"
#include "rafs/builder/tree.h"
#include "rafs/metadata/metadata.h"
#include "storage/blobmeta/ci.h"

namespace davit::rafs {

struct BuildOptions {
  std::uint32_t chunk_size = 1U << 20;  // power of two, 4 KiB to 16 MiB
  codec::Algorithm compressor = codec::Algorithm::kZstd;
  int compression_level = 0;  // 0: the algorithm's default
  DigestAlgorithm digester = DigestAlgorithm::kBlake3;
  std::uint32_t batch_size = 0;  // 0: no batches; else power of two, 4 KiB..chunk_size
  bool blob_toc = true;
  bool inline_bootstrap = false;  // blob holds its own bootstrap (layer blobs)
  enum class Whiteouts { kOci, kOverlay, kNone } whiteouts = Whiteouts::kOci;
  bool keep_uid_gid = true;
  std::vector<std::string> prefetch;  // absolute paths; files and directories, in this order
  int threads = 0;                    // 0: one per CPU
  std::uint64_t max_buffer_bytes = 96ULL << 20;
  /// kInvalidArgument naming the field.
  Status Validate() const;
};

/// One chunk that some blob holds; what the chunk table needs.
struct StoredChunk {
  Digest digest;
  std::uint32_t size = 0;  // uncompressed; 0: its image's chunk table lacks it
  std::optional<std::uint32_t> crc32c;
  storage::CiRecord record;
};

/// A finished blob, or one of another image that is only referred to.
struct BuiltBlob {
  storage::BlobId id;
  std::string path;                   // empty for a blob that is only referred to
  std::uint64_t file_size = 0;        // of the stored object
  std::uint64_t compressed_size = 0;  // blob table's field
  std::uint64_t uncompressed_size = 0;
  std::uint32_t features = 0;
  std::uint64_t toc_size = 0;
  Digest toc_digest;
  std::string ci_array;  // uncompressed
  storage::CiHeader ci_header{};
  std::vector<StoredChunk> chunks;  // by chunk index
};

/// Blobs of an image by position; ChunkRef::blob indexes it.
struct BlobSet {
  std::vector<BuiltBlob> blobs;
};

/// Finds chunks that need not be stored again. Filled by every layer that is built with it and by
/// AddImage; lookups are by digest and size. Not thread-safe (the sequencing stage owns it).
class ChunkDict {
 public:
  ChunkDict();
  ~ChunkDict();
  ChunkDict(ChunkDict&&) noexcept;
  /// All chunks of another image. kInvalidArgument when chunk size, compressor or digester differ.
  Status AddImage(const Metadata& metadata, const BuildOptions& options, BlobSet& blobs);
  void Add(const Digest& digest, std::uint32_t size, ChunkRef ref);
  std::optional<ChunkRef> Find(const Digest& digest, std::uint32_t size) const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Bytes of source content done so far; called from one thread at a time.
using BuildProgress = std::function<void(std::uint64_t bytes)>;

/// Reads one source, stores its chunks as one blob in `work_dir` (appended to `blobs`, nothing is
/// appended when it has no chunks) and returns its tree. `dict` may be null: then chunks are still
/// stored once within this source.
Result<Tree> BuildDirectory(const Context& ctx, const std::string& directory,
                            const BuildOptions& options, const std::string& work_dir,
                            BlobSet& blobs, ChunkDict* dict, const BuildProgress& progress = {});
/// A tar stream (already decompressed). `layer` is noted in the inodes.
Result<Tree> BuildTar(const Context& ctx, std::unique_ptr<codec::ByteStream> tar,
                      std::uint32_t layer, const BuildOptions& options, const std::string& work_dir,
                      BlobSet& blobs, ChunkDict* dict, const BuildProgress& progress = {});

/// The bootstrap of a tree. Blobs that the tree does not use are left out and the rest numbered by
/// first use (breadth first), as the merged bootstraps of nydus are. kInvalidArgument above the
/// format's limits (254 blobs, 2^24 chunks a blob, 16 TiB with the bootstrap), naming the limit.
struct Bootstrap {
  std::string bytes;
  std::vector<std::uint32_t> used_blobs;  // positions in the BlobSet, in table order
};
Result<Bootstrap> WriteBootstrap(const Tree& tree, const BlobSet& blobs,
                                 const BuildOptions& options);

/// Turns the marker entries of a tree (OCI's `.wh.` names, overlayfs devices and xattrs) and
/// davit's own of layer bootstraps into the flags of its inodes. BuildTar and BuildDirectory have
/// done it. kInvalidArgument, naming the entry, for markers that make no sense.
Status InterpretMarkers(Tree& tree, BuildOptions::Whiteouts form);

/// Appends the blobs of `from` to `into` and adapts a tree that was built with `from`; for layers
/// that are built at the same time, each with a BlobSet of its own.
void MoveBlobs(Tree& tree, BlobSet&& from, BlobSet& into);

/// The tree of an existing bootstrap, with its blobs appended to `blobs` (for merge, dictionaries
/// and rewriting).
Result<Tree> TreeFromBootstrap(const Metadata& metadata, BlobSet& blobs);

}  // namespace davit::rafs
