#include "tests/support/tree/image_content.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cstring>

#include "common/base/fd.h"
#include "storage/blobmeta/toc.h"

namespace davit::testing {
namespace {

// A string that lives as long as the metadata that points into it.
Result<std::unique_ptr<rafs::Metadata>> OpenCopy(const std::string& bootstrap) {
  auto owner = std::make_shared<std::string>(bootstrap);
  return rafs::Metadata::Open(AsBytes(*owner), owner);
}

}  // namespace

Result<std::string> UncompressedBlob(const rafs::Metadata& metadata, std::uint32_t index,
                                     const std::string& path) {
  const rafs::BlobRecord& record = metadata.blobs()[index];
  DAVIT_TRY_ASSIGN(const std::string file, ReadFile(path, 1ULL << 30));
  DAVIT_TRY_ASSIGN(const Bytes stored_ci,
                   SubBytes(AsBytes(file), record.ci.ci_offset,
                            record.ci.ci_compressed_size + storage::kCiHeaderSize, "ci"));
  DAVIT_TRY_ASSIGN(std::string ci, storage::DecodeStoredCi(stored_ci, record.ci));
  DAVIT_TRY_ASSIGN(auto digests, metadata.Digests(index));
  DAVIT_TRY_ASSIGN(const auto map,
                   storage::MakeRafsBlobMap(std::move(ci), record.ci, std::move(digests)));
  std::string out(map->uncompressed_size(), '\0');
  for (std::uint32_t u = 0; u < map->unit_count(); ++u) {
    const storage::Unit unit = map->UnitAt(u);
    DAVIT_TRY_ASSIGN(const Bytes compressed,
                     SubBytes(AsBytes(file), unit.compressed_offset, unit.compressed_size, "unit"));
    std::string plain(unit.uncompressed_size, '\0');
    DAVIT_TRY(map->Decode(u, compressed, std::as_writable_bytes(std::span(plain))));
    const auto [first, end] = map->ChunksOfUnit(u);
    for (std::uint32_t c = first; c < end; ++c) {
      const storage::Chunk chunk = map->ChunkAt(c);
      const Bytes data = AsBytes(plain).subspan(chunk.offset_in_unit, chunk.size);
      DAVIT_TRY(storage::VerifyChunk(*map, chunk, data));
      std::memcpy(out.data() + chunk.offset, data.data(), data.size());
    }
  }
  return out;
}

Result<Content> ReadImage(const std::string& bootstrap, const rafs::BlobSet& blobs,
                          const rafs::BuildOptions& options) {
  DAVIT_TRY_ASSIGN(const auto metadata, OpenCopy(bootstrap));
  if (metadata->info().chunk_size != options.chunk_size ||
      metadata->info().compressor != options.compressor ||
      metadata->info().digester != options.digester) {
    return Error(Code::kInternal, "the bootstrap has other settings than the build");
  }
  std::vector<std::string> devices;
  for (std::uint32_t b = 0; b < metadata->blobs().size(); ++b) {
    std::string path;
    for (const rafs::BuiltBlob& blob : blobs.blobs) {
      if (blob.id == metadata->blobs()[b].id) path = blob.path;
    }
    if (path.empty()) return Error(Code::kNotFound, "blob " + metadata->blobs()[b].id.value);
    DAVIT_TRY_ASSIGN(std::string device, UncompressedBlob(*metadata, b, path));
    devices.push_back(std::move(device));
  }
  Content content;
  const auto read = [&](const std::string& path, const rafs::Attributes& a) -> Status {
    Node node{.mode = a.mode,
              .uid = a.uid,
              .gid = a.gid,
              .rdev = a.rdev,
              .nlink = a.nlink,
              .mtime = a.mtime,
              .mtime_nsec = a.mtime_nsec,
              .id = a.id.value};
    if (S_ISREG(a.mode)) {
      std::vector<rafs::Extent> extents;
      DAVIT_TRY(metadata->Extents(a.id, 0, a.size, extents));
      for (const rafs::Extent& e : extents) {
        if (!e.blob || e.file_offset != node.content.size()) {
          return Error(Code::kInternal, path + ": hole or gap");
        }
        node.content += devices[*e.blob].substr(e.blob_offset, e.length);
      }
      if (node.content.size() != a.size) return Error(Code::kInternal, path + ": short");
    }
    if (S_ISLNK(a.mode)) {
      DAVIT_TRY_ASSIGN(node.target, metadata->ReadLink(a.id));
    }
    DAVIT_TRY(metadata->ListXattrs(a.id, [&](std::string_view name, Bytes value) {
      node.xattrs.emplace(name, AsText(value));
    }));
    std::string key = path;
    while (key.starts_with('/')) key.erase(0, 1);
    // Every name must also be found by the binary search.
    DAVIT_TRY_ASSIGN(const rafs::InodeId found, rafs::LookupPath(*metadata, path));
    if (found != a.id) return Error(Code::kInternal, path + ": lookup finds another inode");
    content[key] = std::move(node);
    return {};
  };
  DAVIT_TRY(rafs::Walk(*metadata, metadata->root(), read));
  return content;
}

Result<std::string> BlobSection(const std::string& path, std::string_view name) {
  DAVIT_TRY_ASSIGN(const std::string file, ReadFile(path, 1ULL << 30));
  const std::size_t tail = std::min<std::size_t>(file.size(), 4096);
  DAVIT_TRY_ASSIGN(const storage::Toc toc,
                   storage::Toc::ParseTail(AsBytes(file).last(tail), file.size()));
  const storage::TocEntry* entry = toc.Find(name);
  if (entry == nullptr) return Error(Code::kNotFound, fmt::format("section {}", name));
  DAVIT_TRY_ASSIGN(const Bytes stored,
                   SubBytes(AsBytes(file), entry->offset, entry->stored_size, "section"));
  return storage::ExtractSection(*entry, stored, 1ULL << 30);
}

}  // namespace davit::testing
