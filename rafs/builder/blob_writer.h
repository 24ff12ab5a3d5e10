#pragma once
// The file of a blob under construction, and what follows its chunk data: chunk table (CI),
// digests, bootstrap, table of contents. Layout: docs/formats/rafs.md, "Data blob".

#include <cstdint>
#include <string>

#include "common/base/bytes.h"
#include "common/base/fd.h"
#include "common/base/result.h"
#include "common/digest/digest.h"
#include "rafs/builder/builder.h"

namespace davit::rafs {

/// Appends to a temporary file and digests what it writes; removes the file unless it was kept.
class BlobFile {
 public:
  static Result<BlobFile> Create(const std::string& directory);
  BlobFile(BlobFile&& other) noexcept;
  BlobFile& operator=(BlobFile&&) = delete;
  ~BlobFile();

  Status Append(Bytes data);
  /// Bytes that do not count for the blob's id.
  Status AppendUndigested(Bytes data);
  std::uint64_t size() const { return size_; }
  /// sha256 of the digested bytes so far.
  Digest PeekDigest() const { return hasher_.Peek(); }
  /// sha256 of the digested bytes. Once.
  Digest Finish() { return hasher_.Finish(); }
  /// Renames the file to `<directory>/<name>`; the new path.
  Result<std::string> Keep(const std::string& name);

 private:
  BlobFile(std::string directory, std::string path, UniqueFd fd);
  std::string directory_, path_;
  UniqueFd fd_;
  Hasher hasher_;
  std::uint64_t size_ = 0;
};

struct ChunkOutput;

/// Completes the blob whose data region is in `file` and appends it to `blobs`. With
/// options.inline_bootstrap the blob gets the bootstrap of `tree`, whose references to this blob
/// are `blobs.blobs.size()`. `chunks` must not be empty.
Status SealBlob(BlobFile file, ChunkOutput&& output, const Tree& tree, const BuildOptions& options,
                BlobSet& blobs);

/// In a bootstrap, the blob that it is inside: it cannot know the digest of what it is part of.
inline storage::BlobId UnnamedBlob() { return {std::string(64, 'x')}; }

/// Whether a bootstrap is a layer's (markers stay, as `.wh.` names) or an image's (they go).
enum class BootstrapKind { kLayer, kImage };
Result<Bootstrap> WriteBootstrapOf(BootstrapKind kind, const Tree& tree, const BlobSet& blobs,
                                   const BuildOptions& options);

}  // namespace davit::rafs
