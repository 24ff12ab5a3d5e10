#include "rafs/builder/blob_writer.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <utility>

#include "rafs/builder/pipeline.h"
#include "rafs/layout/v6.h"
#include "storage/blobmeta/toc.h"

namespace davit::rafs {
namespace {

using storage::TocCompression;

Digest Sha256(Bytes data) { return Digest::Of(DigestAlgorithm::kSha256, data); }

// The compressed form of `data` when that is smaller, else nothing.
Result<std::optional<std::string>> TryCompress(codec::Algorithm algorithm, int level, Bytes data) {
  if (algorithm == codec::Algorithm::kNone || data.empty()) return std::nullopt;
  DAVIT_TRY_ASSIGN(const auto compressor, codec::MakeCompressor(algorithm, level));
  std::string out(compressor->Bound(data.size()), '\0');
  DAVIT_TRY_ASSIGN(const std::size_t n,
                   compressor->Compress(data, std::as_writable_bytes(std::span(out))));
  if (n >= data.size()) return std::nullopt;
  out.resize(n);
  return out;
}

std::uint32_t FeaturesOf(const BuildOptions& options, const ChunkOutput& output) {
  std::uint32_t features = storage::kBlobAligned | storage::kBlobCapTarToc;
  if (options.blob_toc) {
    features |= storage::kBlobInlinedDigest | storage::kBlobTarHeader | storage::kBlobToc;
  }
  if (options.inline_bootstrap) features |= storage::kBlobInlinedMeta | storage::kBlobTarHeader;
  if (!output.batches.empty()) features |= storage::kBlobCiV2 | storage::kBlobBatch;
  return features;
}

// Writes what follows the data region, section by section.
class Sealer {
 public:
  Sealer(BlobFile& file, const BuildOptions& options, BuiltBlob& blob)
      : file_(file), options_(options), blob_(blob) {}

  // The header that names the data before it. Its digest covers the header, too.
  Status Data(std::uint64_t size) {
    if (!has_headers()) return {};
    DAVIT_TRY(Header(storage::kSectionData, size));
    if (!options_.blob_toc) return {};
    // Everything of the file so far: the data and its header.
    toc_.entries.push_back({.name = std::string(storage::kSectionData),
                            .digest = file_.PeekDigest(),
                            .offset = 0,
                            .stored_size = size,
                            .uncompressed_size = blob_.uncompressed_size});
    return {};
  }

  Status Ci(const std::vector<storage::BatchContext>& batches) {
    std::vector<storage::CiRecord> records;
    records.reserve(blob_.chunks.size());
    for (const StoredChunk& chunk : blob_.chunks) records.push_back(chunk.record);
    DAVIT_TRY_ASSIGN(blob_.ci_array, storage::EncodeCiArray(records, batches));
    // Sections that the TOC lists are compressed with zstd or not at all: others cannot be
    // extracted by every reader.
    const bool allowed = !options_.blob_toc || options_.compressor == codec::Algorithm::kZstd;
    DAVIT_TRY_ASSIGN(const auto packed,
                     TryCompress(allowed ? options_.compressor : codec::Algorithm::kNone,
                                 options_.compression_level, AsBytes(blob_.ci_array)));
    const Bytes stored = AsBytes(packed ? *packed : blob_.ci_array);
    storage::CiHeader& h = blob_.ci_header;
    h.magic = storage::kCiMagic;
    h.features = blob_.features;
    h.compressor =
        static_cast<std::uint32_t>(packed ? options_.compressor : codec::Algorithm::kNone);
    h.record_count = static_cast<std::uint32_t>(blob_.chunks.size());
    h.offset = file_.size();
    h.compressed_size = stored.size();
    h.uncompressed_size = blob_.ci_array.size();
    if (!batches.empty()) {
      h.area_offset = blob_.chunks.size() * 24;
      h.area_size = batches.size() * 40;
      h.context_count = static_cast<std::uint32_t>(batches.size());
    }
    const std::string header = storage::EncodeCiHeader(h);
    DAVIT_TRY(Section(storage::kSectionCi, stored, AsBytes(blob_.ci_array),
                      packed ? TocCompression::kZstd : TocCompression::kNone, AsBytes(header)));
    return {};
  }

  Status Digests() {
    if (!options_.blob_toc) return {};
    std::string digests;
    digests.reserve(blob_.chunks.size() * 32);
    for (const StoredChunk& chunk : blob_.chunks) digests.append(AsText(chunk.digest.bytes));
    const std::uint64_t offset = file_.size();
    // The id of a blob that does not hold its bootstrap leaves the digests out.
    DAVIT_TRY(options_.inline_bootstrap ? file_.Append(AsBytes(digests))
                                        : file_.AppendUndigested(AsBytes(digests)));
    DAVIT_TRY(Header(storage::kSectionDigest, digests.size()));
    toc_.entries.push_back({.name = std::string(storage::kSectionDigest),
                            .digest = Sha256(AsBytes(digests)),
                            .offset = offset,
                            .stored_size = digests.size(),
                            .uncompressed_size = digests.size()});
    return {};
  }

  Status InlineBootstrap(const std::string& bootstrap) {
    std::optional<std::string> packed;
    if (options_.blob_toc) {
      DAVIT_TRY_ASSIGN(packed, TryCompress(codec::Algorithm::kZstd, 0, AsBytes(bootstrap)));
    }
    return Section(storage::kSectionBootstrap, AsBytes(packed ? *packed : bootstrap),
                   AsBytes(bootstrap), packed ? TocCompression::kZstd : TocCompression::kNone, {});
  }

  Status TableOfContents() {
    if (!options_.blob_toc) return {};
    const std::string bytes = toc_.Encode();
    blob_.toc_size = bytes.size();
    blob_.toc_digest = Sha256(AsBytes(bytes));
    return file_.Append(AsBytes(bytes));
  }

 private:
  bool has_headers() const { return options_.blob_toc || options_.inline_bootstrap; }

  Status Header(std::string_view name, std::uint64_t size) {
    return file_.Append(AsBytes(storage::EncodeSectionHeader(name, size)));
  }

  // `trailer` belongs to the section but has an entry of its own (the CI header).
  Status Section(std::string_view name, Bytes stored, Bytes plain, TocCompression compression,
                 Bytes trailer) {
    const std::uint64_t offset = file_.size();
    DAVIT_TRY(file_.Append(stored));
    if (!trailer.empty()) DAVIT_TRY(file_.Append(trailer));
    if (has_headers()) DAVIT_TRY(Header(name, stored.size() + trailer.size()));
    if (!options_.blob_toc) return {};
    toc_.entries.push_back({.compression = compression,
                            .name = std::string(name),
                            .digest = Sha256(plain),
                            .offset = offset,
                            .stored_size = stored.size(),
                            .uncompressed_size = plain.size()});
    if (!trailer.empty()) {
      toc_.entries.push_back({.name = std::string(storage::kSectionCiHeader),
                              .digest = Sha256(trailer),
                              .offset = offset + stored.size(),
                              .stored_size = trailer.size(),
                              .uncompressed_size = trailer.size()});
    }
    return {};
  }

  BlobFile& file_;
  const BuildOptions& options_;
  BuiltBlob& blob_;
  storage::Toc toc_;
};

}  // namespace

BlobFile::BlobFile(std::string directory, std::string path, UniqueFd fd)
    : directory_(std::move(directory)),
      path_(std::move(path)),
      fd_(std::move(fd)),
      hasher_(DigestAlgorithm::kSha256) {}

BlobFile::BlobFile(BlobFile&& other) noexcept
    : directory_(std::move(other.directory_)),
      path_(std::exchange(other.path_, {})),
      fd_(std::move(other.fd_)),
      hasher_(std::move(other.hasher_)),
      size_(other.size_) {}

BlobFile::~BlobFile() {
  if (!path_.empty()) ::unlink(path_.c_str());
}

Result<BlobFile> BlobFile::Create(const std::string& directory) {
  std::string path = directory + "/.blob-XXXXXX";
  UniqueFd fd(::mkostemp(path.data(), O_CLOEXEC));
  if (!fd) return Error::FromErrno(errno, fmt::format("create a blob file in '{}'", directory));
  return BlobFile(directory, std::move(path), std::move(fd));
}

Status BlobFile::Append(Bytes data) {
  hasher_.Update(data);
  return AppendUndigested(data);
}

Status BlobFile::AppendUndigested(Bytes data) {
  if (auto status = WriteFull(fd_.get(), data); !status.ok()) {
    return std::move(status).error().WithContext(fmt::format("write blob file '{}'", path_));
  }
  size_ += data.size();
  return {};
}

Result<std::string> BlobFile::Keep(const std::string& name) {
  std::string path = directory_ + "/" + name;
  if (::rename(path_.c_str(), path.c_str()) != 0) {
    return Error::FromErrno(errno, fmt::format("rename '{}' to '{}'", path_, path));
  }
  path_.clear();
  fd_.reset();
  return path;
}

Status SealBlob(BlobFile file, ChunkOutput&& output, const Tree& tree, const BuildOptions& options,
                BlobSet& blobs) {
  BuiltBlob blob;
  blob.features = FeaturesOf(options, output);
  blob.uncompressed_size = output.uncompressed_size;
  blob.chunks = std::move(output.chunks);
  Sealer sealer(file, options, blob);
  DAVIT_TRY(sealer.Data(output.data_size));
  DAVIT_TRY(sealer.Ci(output.batches));
  DAVIT_TRY(sealer.Digests());
  if (options.inline_bootstrap) {
    blob.id = UnnamedBlob();  // readers put the file's name in place of it
    blob.compressed_size = file.size();
    blobs.blobs.push_back(std::move(blob));
    auto bootstrap = WriteBootstrapOf(BootstrapKind::kLayer, tree, blobs, options);
    blob = std::move(blobs.blobs.back());
    blobs.blobs.pop_back();
    if (!bootstrap.ok()) return std::move(bootstrap).error();
    DAVIT_TRY(sealer.InlineBootstrap(bootstrap->bytes));
  }
  DAVIT_TRY(sealer.TableOfContents());
  blob.file_size = blob.compressed_size = file.size();
  blob.id.value = file.Finish().Hex();
  DAVIT_TRY_ASSIGN(blob.path, file.Keep(blob.id.value));
  blobs.blobs.push_back(std::move(blob));
  return {};
}

}  // namespace davit::rafs
