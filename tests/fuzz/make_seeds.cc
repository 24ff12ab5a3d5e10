// Writes the seeds of the RAFS fuzz targets: fuzz_seeds tests/fuzz/corpus

#include <sys/stat.h>

#include <cstdio>
#include <string>

#include "common/base/fd.h"
#include "common/codec/codec.h"
#include "common/codec/stream.h"
#include "rafs/image/image.h"
#include "storage/blobmeta/ci.h"
#include "storage/blobmeta/toc.h"
#include "tests/support/raw_image/raw_image.h"

namespace davit {
namespace {

using rafs::v6::EncodeChunkIndex;
using testing::RawImage;
using testing::XattrBytes;

std::string SampleBootstrap(bool compact) {
  using enum erofs::XattrIndex;
  RawImage raw(4096, RawImage::Room::kFewBlobs);
  raw.AddBlob(10, 1 << 20);
  auto& own = raw.AddBlob(3, 1 << 20);
  std::fill(std::begin(own.blob_id), std::end(own.blob_id), 'x');
  const auto root = raw.ReserveBlock();
  const auto sub = raw.Reserve(600);
  auto file = raw.File(
      10000,
      {EncodeChunkIndex({0, 0, 0}, 12), EncodeChunkIndex({0, 1, 4096}, 12), {0, 0, 0xFFFF'FFFF}});
  file.compact = compact;
  file.nlink = 2;
  file.xattrs = XattrBytes(kUser, "a", "b") + XattrBytes(kPosixAclAccess, "", "acl");
  const auto file_nid = raw.Add(file);
  const auto link = raw.Add({.mode = S_IFLNK | 0777,
                             .size = 4,
                             .compact = compact,
                             .layout = erofs::Layout::kInline,
                             .tail = "file"});
  const auto device = raw.Add({.mode = S_IFCHR | 0600, .u = 0x103, .compact = compact});
  raw.PutDir(sub, root, {{"-x", file_nid, 1}, {"y", device, 3}}, {.compact = compact});
  raw.PutDir(root, root, {{"sub", sub, 2}, {"file", file_nid, 1}, {"l", link, 7}});
  raw.prefetch = {static_cast<std::uint32_t>(file_nid), 0};
  for (std::uint32_t i = 0; i < 2; ++i) {
    rafs::v6::ChunkRecord record{};
    record.digest[0] = 1;
    record.chunk_index = i;
    record.uncompressed_size = 4096;
    record.uncompressed_offset = i * 4096;
    raw.chunks.push_back(record);
  }
  return raw.Build();
}

std::string Compress(std::string_view in, codec::Algorithm algorithm = codec::Algorithm::kZstd) {
  // Chunks are read with gzip, but never written.
  if (algorithm == codec::Algorithm::kGzip) return *codec::GzipCompress(AsBytes(in));
  auto compressor = *codec::MakeCompressor(algorithm);
  std::string out(compressor->Bound(in.size()), '\0');
  out.resize(*compressor->Compress(AsBytes(in), std::as_writable_bytes(std::span(out))));
  return out;
}

enum class CiForm { kStored, kStoredZstd, kLocal, kBare };

std::string SampleCi(bool batch, CiForm form) {
  std::vector<storage::CiRecord> records{{.compressed_offset = 0,
                                          .compressed_size = 90,
                                          .uncompressed_offset = 0,
                                          .uncompressed_size = 5000,
                                          .compressed = true},
                                         {.compressed_offset = 90,
                                          .compressed_size = 100,
                                          .uncompressed_offset = 8192,
                                          .uncompressed_size = 100}};
  std::vector<storage::BatchContext> batches;
  if (batch) {
    for (std::uint32_t i = 0; i < 2; ++i) {
      records.push_back({.compressed_offset = 190,
                         .uncompressed_offset = 12288 + i * 4096,
                         .uncompressed_size = 50,
                         .batch = true,
                         .offset_in_batch = i * 50});
    }
    batches.push_back({80, 100});
  }
  const std::string array = *storage::EncodeCiArray(records, batches);
  const bool zstd = form == CiForm::kStoredZstd;
  const std::string stored = zstd ? Compress(array) : array;
  storage::CiHeader header{};
  header.compressor = zstd ? 3 : 0;
  header.record_count = static_cast<std::uint32_t>(records.size());
  header.offset = 300;
  header.compressed_size = stored.size();
  header.uncompressed_size = array.size();
  header.area_offset = records.size() * 24;
  header.area_size = batches.size() * 40;
  header.context_count = static_cast<std::uint32_t>(batches.size());

  // The head that the target reads.
  const std::uint32_t features =
      storage::kBlobAligned | (batch ? storage::kBlobCiV2 | storage::kBlobBatch : 0U);
  std::string out;
  const auto put = [&](auto value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  put(features);
  put(header.record_count);
  put(static_cast<std::uint32_t>(stored.size()));
  put(static_cast<std::uint32_t>(array.size()));
  put(header.offset);
  put(std::uint64_t{1} << 20);
  put(std::uint64_t{300});
  put(std::uint32_t{1} << 20);
  put(std::uint32_t{zstd ? 15U : 3U});
  if (form == CiForm::kBare) return out + array;
  if (form == CiForm::kLocal) return out + storage::EncodeLocalCi(AsBytes(array), header);
  return out + stored + storage::EncodeCiHeader(header);
}

/// The bare form with the blob's data behind it: a compressed unit, one that is stored as it is, a
/// batch.
std::string SampleUnits(codec::Algorithm algorithm) {
  const std::string text = [] {
    std::string out;
    for (int i = 0; i < 300; ++i) out += "line " + std::to_string(i) + '\n';
    return out;
  }();
  const auto size = [](const std::string& s) { return static_cast<std::uint32_t>(s.size()); };
  const std::string first = Compress(text, algorithm), plain = "stored as it is";
  const std::string members = text.substr(0, 1000), batch = Compress(members, algorithm);
  const std::string data = first + plain + batch;
  std::vector<storage::CiRecord> records{{.compressed_offset = 0,
                                          .compressed_size = size(first),
                                          .uncompressed_offset = 0,
                                          .uncompressed_size = size(text),
                                          .compressed = true},
                                         {.compressed_offset = first.size(),
                                          .compressed_size = size(plain),
                                          .uncompressed_offset = 4096,
                                          .uncompressed_size = size(plain)}};
  for (std::uint32_t i = 0; i < 2; ++i) {
    records.push_back({.compressed_offset = first.size() + plain.size(),
                       .uncompressed_offset = 8192 + i * 4096,
                       .uncompressed_size = 500,
                       .batch = true,
                       .offset_in_batch = i * 500});
  }
  const std::string array = *storage::EncodeCiArray(records, {{size(batch), size(members)}});
  std::string out;
  const auto put = [&](auto value) {
    out.append(reinterpret_cast<const char*>(&value), sizeof value);
  };
  put(std::uint32_t{storage::kBlobAligned | storage::kBlobCiV2 | storage::kBlobBatch});
  put(static_cast<std::uint32_t>(records.size()));
  put(size(array));
  put(size(array));
  put(std::uint64_t{data.size()});
  put(std::uint64_t{1} << 20);
  put(std::uint64_t{data.size()});
  put(std::uint32_t{1} << 20);
  put(static_cast<std::uint32_t>(algorithm) | size(data) << 16);
  return out + array + data;
}

std::string SampleToc() {
  std::string blob;
  storage::Toc toc;
  for (const auto& [name, content, zstd] :
       {std::tuple{storage::kSectionData, std::string("chunks"), false},
        std::tuple{storage::kSectionCi, std::string("array and header"), false},
        std::tuple{storage::kSectionBootstrap, std::string(300, 'b'), true}}) {
    const std::string stored = zstd ? Compress(content) : content;
    storage::TocEntry entry;
    entry.name = name;
    entry.compression = zstd ? storage::TocCompression::kZstd : storage::TocCompression::kNone;
    entry.digest = Digest::Of(DigestAlgorithm::kSha256, AsBytes(content));
    entry.offset = blob.size();
    entry.stored_size = stored.size();
    entry.uncompressed_size = content.size();
    toc.entries.push_back(entry);
    blob += stored + storage::EncodeSectionHeader(name, stored.size());
  }
  return blob + toc.Encode();
}

Status WriteAll(const std::string& corpus) {
  const auto write = [&](const std::string& target, const std::string& name,
                         const std::string& bytes) -> Status {
    DAVIT_TRY(MakeDirectories(corpus + "/" + target, 0755));
    return WriteFileAtomic(corpus + "/" + target + "/" + name, AsBytes(bytes), 0644);
  };
  DAVIT_TRY(write("fuzz_rafs_metadata", "extended", SampleBootstrap(false)));
  DAVIT_TRY(write("fuzz_rafs_metadata", "compact", SampleBootstrap(true)));
  DAVIT_TRY(write("fuzz_blob_ci", "v1-stored", SampleCi(false, CiForm::kStored)));
  DAVIT_TRY(write("fuzz_blob_ci", "v1-local", SampleCi(false, CiForm::kLocal)));
  DAVIT_TRY(write("fuzz_blob_ci", "v2-batch-stored", SampleCi(true, CiForm::kStored)));
  DAVIT_TRY(write("fuzz_blob_ci", "v2-batch-zstd", SampleCi(true, CiForm::kStoredZstd)));
  DAVIT_TRY(write("fuzz_blob_ci", "v2-batch-bare", SampleCi(true, CiForm::kBare)));
  for (const auto algorithm :
       {codec::Algorithm::kLz4Block, codec::Algorithm::kGzip, codec::Algorithm::kZstd}) {
    DAVIT_TRY(write("fuzz_blob_ci", "units-" + std::string(codec::AlgorithmName(algorithm)),
                    SampleUnits(algorithm)));
  }
  DAVIT_TRY(write("fuzz_blob_toc", "three-sections", SampleToc()));
  const storage::BlobId id{std::string(64, 'a')};
  DAVIT_TRY_ASSIGN(const auto layer,
                   rafs::PackBootstrapLayer(AsBytes("bootstrap"), {{id, "chunk info"}}));
  DAVIT_TRY(write("fuzz_bootstrap_layer", "gzip", layer.gzip));
  DAVIT_TRY_ASSIGN(const std::string tar, codec::Gunzip(AsBytes(layer.gzip), 1 << 20));
  return write("fuzz_bootstrap_layer", "plain", tar);
}

}  // namespace
}  // namespace davit

int main(int argc, char** argv) {
  if (argc != 2) {
    std::fprintf(stderr, "usage: %s CORPUS_DIRECTORY\n", argv[0]);
    return 2;
  }
  const auto status = davit::WriteAll(argv[1]);
  if (status) return 0;
  std::fprintf(stderr, "%s\n", status.error().ToString().c_str());
  return 1;
}
