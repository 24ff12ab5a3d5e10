#pragma once
// From the bytes of files to the data region of a blob: split into chunks, digest, drop what is
// known, compress, write. One thread feeds it; a pool does the rest. Order and content of the
// output depend on the input only, never on the number of threads.

#include <cstdint>
#include <memory>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/result.h"
#include "rafs/builder/blob_writer.h"
#include "rafs/builder/builder.h"

namespace davit::rafs {

/// What the pipeline has stored.
struct ChunkOutput {
  std::vector<StoredChunk> chunks;  // by index in the blob
  std::vector<storage::BatchContext> batches;
  std::uint64_t data_size = 0;          // bytes in the blob file
  std::uint64_t uncompressed_size = 0;  // of the blob's address space
};

/// Used by one thread. Calls may block while the workers are behind; the first error of any stage
/// is returned by the next call and by Finish.
class ChunkPipeline {
 public:
  /// `out`, `dict` and `options` must outlive the pipeline. `blob_index` is the position the new
  /// blob will have in its BlobSet.
  static Result<std::unique_ptr<ChunkPipeline>> Start(const BuildOptions& options, BlobFile& out,
                                                      ChunkDict& dict, std::uint32_t blob_index);
  virtual ~ChunkPipeline() = default;

  /// The next file; its chunks are appended to `file->chunks` (complete after Finish). Exactly
  /// `file->size` bytes must follow. `name` is for messages.
  virtual Status BeginFile(std::shared_ptr<TreeInode> file, const std::string& name) = 0;
  /// Where the next bytes of the file go; never empty as long as bytes are missing.
  virtual MutableBytes Space() = 0;
  /// The first `count` bytes of Space() are filled.
  virtual Status Commit(std::size_t count) = 0;
  /// Copies bytes that belong next.
  Status Append(Bytes data);
  /// The next `count` bytes are zeros.
  virtual Status AppendZeros(std::uint64_t count) = 0;
  /// Bytes of the current file that have not come yet.
  virtual std::uint64_t missing() const = 0;

  /// Waits until everything is written.
  virtual Result<ChunkOutput> Finish() = 0;
};

}  // namespace davit::rafs
