#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>

#include "rafs/metadata/v6_reader.h"

namespace davit::rafs {
namespace {

constexpr std::uint32_t kHoleBlock = 0xFFFF'FFFF;
constexpr std::uint32_t kBlockBits = 12;

/// Adds a piece, or makes the last one longer when the new one continues it.
void Append(const Extent& extent, std::vector<Extent>& out, std::size_t first_own) {
  if (out.size() > first_own) {
    Extent& last = out.back();
    const bool continues = last.file_offset + last.length == extent.file_offset &&
                           last.blob == extent.blob &&
                           (!last.blob || last.blob_offset + last.length == extent.blob_offset);
    if (continues) {
      last.length += extent.length;
      return;
    }
  }
  out.push_back(extent);
}

}  // namespace

Result<Extent> V6Metadata::ReadChunk(const V6Inode& file, Bytes indices, std::uint64_t chunk,
                                     ByteRange range) const {
  const std::uint64_t chunk_size = super_.ext.chunk_size;
  const std::uint64_t start = chunk * chunk_size;
  const std::uint64_t end = std::min(start + chunk_size, file.attributes.size);
  DAVIT_TRY_ASSIGN(const auto raw,
                   LoadAt<erofs::ChunkIndex>(indices, chunk * sizeof(erofs::ChunkIndex),
                                             "chunk indices of a file"));
  const std::uint64_t from = std::max(start, range.offset);
  const std::uint64_t to = std::min(end, range.offset + range.length);
  Extent extent;
  extent.file_offset = from;
  extent.length = to - from;
  const auto where = v6::DecodeChunkIndex(raw, kBlockBits);
  if (where) {
    if (where->blob_index >= blobs_.size() ||
        where->blob_offset + (end - start) > blobs_[where->blob_index].ci.uncompressed_size) {
      return Damaged(fmt::format("inode {}: chunk {} is at {:#x} of blob {}, which does not exist",
                                 file.attributes.id.value, chunk, where->blob_offset,
                                 where->blob_index));
    }
    extent.blob = where->blob_index;
    extent.blob_offset = where->blob_offset + (from - start);
    extent.chunk = where->chunk_index;
  } else if (raw.blkaddr != kHoleBlock) {
    return Error(Code::kUnsupported, fmt::format("inode {}: file content inside the bootstrap",
                                                 file.attributes.id.value));
  }
  return extent;
}

Status V6Metadata::Extents(InodeId inode, std::uint64_t offset, std::uint64_t length,
                           std::vector<Extent>& out) const {
  DAVIT_TRY_ASSIGN(const V6Inode file, Inode(inode));
  if (!S_ISREG(file.attributes.mode)) {
    return Error(Code::kInvalidArgument,
                 fmt::format("inode {} is not a regular file", inode.value));
  }
  const std::uint64_t size = file.attributes.size;
  if (offset >= size || length == 0) return {};
  length = std::min(length, size - offset);
  if (file.layout != erofs::Layout::kChunkBased) {
    return Error(Code::kUnsupported,
                 fmt::format("inode {}: file content inside the bootstrap", inode.value));
  }
  constexpr std::uint32_t kKnownChunkFormat =
      erofs::kChunkFormatIndexes | erofs::kChunkFormatBlkBitsMask;
  if ((file.u & ~kKnownChunkFormat) != 0 || (file.u & erofs::kChunkFormatIndexes) == 0) {
    return Error(Code::kUnsupported,
                 fmt::format("inode {} has the unknown chunk format {:#x}", inode.value, file.u));
  }
  // The number of entries follows from the image's chunk size. The exponent in `u` may be larger:
  // it serves the kernel, which maps a contiguous file by the first entry alone.
  const std::uint64_t chunk_size = super_.ext.chunk_size;
  const std::uint64_t count = DivUp(size, chunk_size);
  const auto bytes = CheckedMul(count, sizeof(erofs::ChunkIndex));
  const std::uint64_t at = AlignUp(file.tail_offset(), sizeof(erofs::ChunkIndex));
  if (!bytes) return Damaged(fmt::format("inode {}: impossible size {}", inode.value, size));
  DAVIT_TRY_ASSIGN(const Bytes indices, SubBytes(image_, at, *bytes, "chunk indices of a file"));

  const std::size_t first_own = out.size();
  const std::uint64_t last = (offset + length - 1) / chunk_size;
  for (std::uint64_t chunk = offset / chunk_size; chunk <= last; ++chunk) {
    DAVIT_TRY_ASSIGN(const Extent extent, ReadChunk(file, indices, chunk, {offset, length}));
    Append(extent, out, first_own);
  }
  return {};
}

}  // namespace davit::rafs
