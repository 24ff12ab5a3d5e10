#include "tests/support/raw_image/raw_image.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>

namespace davit::testing {
namespace {

constexpr std::size_t kBlock = 4096;

template <class T>
void AppendRaw(std::string& out, const T& value) {
  out.append(std::string_view(reinterpret_cast<const char*>(&value), sizeof value));
}

void Align(std::string& out, std::size_t unit) {
  out.resize((out.size() + unit - 1) / unit * unit, '\0');
}

template <class T>
void PutTable(std::string& image, std::size_t offset, const std::vector<T>& table) {
  image.resize(std::max(image.size(), offset + table.size() * sizeof(T)), '\0');
  if (!table.empty()) std::memcpy(image.data() + offset, table.data(), table.size() * sizeof(T));
}

}  // namespace

std::string XattrBytes(erofs::XattrIndex prefix, std::string_view suffix, std::string_view value) {
  erofs::XattrEntry entry{static_cast<std::uint8_t>(suffix.size()),
                          static_cast<std::uint8_t>(prefix),
                          static_cast<std::uint16_t>(value.size())};
  std::string out;
  AppendRaw(out, entry);
  out += suffix;
  out += value;
  Align(out, 4);
  return out;
}

std::string EncodeDir(std::vector<RawImage::Entry> entries) {
  std::ranges::sort(entries, {}, &RawImage::Entry::name);
  std::string out;
  std::size_t next = 0;
  while (next < entries.size()) {
    Align(out, kBlock);
    std::size_t end = next;
    std::size_t used = 0;
    while (end < entries.size() &&
           used + sizeof(erofs::Dirent) + entries[end].name.size() <= kBlock) {
      used += sizeof(erofs::Dirent) + entries[end].name.size();
      ++end;
    }
    std::size_t name_offset = (end - next) * sizeof(erofs::Dirent);
    std::string names;
    for (; next < end; ++next) {
      const auto& entry = entries[next];
      AppendRaw(out,
                erofs::Dirent{entry.nid, static_cast<std::uint16_t>(name_offset + names.size()),
                              entry.type, 0});
      names += entry.name;
    }
    out += names;
  }
  return out;
}

RawImage::RawImage(std::uint32_t chunk_size, Room room)
    : meta_block_(room == Room::kManyBlobs ? 32 : 2),
      blob_table_offset_(room == Room::kManyBlobs ? 9 * kBlock : kBlock) {
  super.magic = erofs::kMagic;
  super.feature_compat = rafs::v6::kFeatureCompatRafsV6;
  super.blkszbits = 12;
  super.root_nid = rafs::v6::kRootNid;
  super.inos = 1;
  super.meta_blkaddr = meta_block_;
  super.feature_incompat = erofs::kFeatureIncompatChunkedFile | erofs::kFeatureIncompatDeviceTable;
  super.devt_slotoff = 11;
  ext.flags =
      rafs::v6::kFlagCompressZstd | rafs::v6::kFlagDigestBlake3 | rafs::v6::kFlagExplicitUidGid;
  ext.chunk_size = chunk_size;
  meta_.resize(kBlock, '\0');
}

std::uint64_t RawImage::Reserve(std::size_t bytes) {
  Align(meta_, erofs::kNidSize);
  const std::uint64_t nid = meta_.size() / erofs::kNidSize;
  meta_.resize(meta_.size() + bytes, '\0');
  return nid;
}

std::uint64_t RawImage::ReserveBlock() {
  Align(meta_, kBlock);
  return Reserve(kBlock);
}

void RawImage::Put(std::uint64_t nid, const Inode& inode) {
  std::string xattrs;
  if (!inode.xattrs.empty() || !inode.shared_xattrs.empty()) {
    erofs::XattrHeader header{};
    header.shared_count = static_cast<std::uint8_t>(inode.shared_xattrs.size());
    AppendRaw(xattrs, header);
    for (const std::uint32_t id : inode.shared_xattrs) AppendRaw(xattrs, id);
    xattrs += inode.xattrs;
  }
  const auto icount = static_cast<std::uint16_t>(
      xattrs.empty() ? 0 : (xattrs.size() - sizeof(erofs::XattrHeader)) / 4 + 1);
  const auto format = static_cast<std::uint16_t>((static_cast<unsigned>(inode.layout) << 1) |
                                                 (inode.compact ? 0U : 1U));
  std::string bytes;
  if (inode.compact) {
    erofs::InodeCompact raw{};
    raw.format = format;
    raw.xattr_icount = icount;
    raw.mode = static_cast<std::uint16_t>(inode.mode);
    raw.nlink = static_cast<std::uint16_t>(inode.nlink);
    raw.size = static_cast<std::uint32_t>(inode.size);
    raw.i_u = inode.u;
    raw.uid = static_cast<std::uint16_t>(inode.uid);
    raw.gid = static_cast<std::uint16_t>(inode.gid);
    AppendRaw(bytes, raw);
  } else {
    erofs::InodeExtended raw{};
    raw.format = format;
    raw.xattr_icount = icount;
    raw.mode = static_cast<std::uint16_t>(inode.mode);
    raw.size = inode.size;
    raw.i_u = inode.u;
    raw.uid = inode.uid;
    raw.gid = inode.gid;
    raw.mtime = static_cast<std::uint64_t>(inode.mtime);
    raw.mtime_nsec = inode.mtime_nsec;
    raw.nlink = inode.nlink;
    AppendRaw(bytes, raw);
  }
  bytes += xattrs;
  if (inode.layout == erofs::Layout::kChunkBased) Align(bytes, sizeof(erofs::ChunkIndex));
  bytes += inode.tail;
  const std::size_t at = nid * erofs::kNidSize;
  meta_.resize(std::max(meta_.size(), at + bytes.size()), '\0');
  bytes.copy(meta_.data() + at, bytes.size());
}

std::uint64_t RawImage::Add(const Inode& inode) {
  const std::uint64_t nid = Reserve(0);
  Put(nid, inode);
  return nid;
}

std::uint32_t RawImage::Blocks(std::string_view data) {
  Align(meta_, kBlock);
  const auto address = static_cast<std::uint32_t>(meta_block_ + meta_.size() / kBlock);
  meta_ += data;
  Align(meta_, kBlock);
  return address;
}

void RawImage::PutDir(std::uint64_t nid, std::uint64_t parent, std::vector<Entry> entries,
                      Inode base, std::size_t inline_limit) {
  constexpr std::uint8_t kDirType = 2;
  entries.push_back({".", nid, kDirType});
  entries.push_back({"..", parent, kDirType});
  const std::string content = EncodeDir(std::move(entries));
  if (base.mode == 0) base.mode = S_IFDIR | 0755;
  base.size = content.size();
  const std::size_t tail = content.size() % kBlock;
  base.layout = tail != 0 && tail <= inline_limit ? erofs::Layout::kInline : erofs::Layout::kPlain;
  std::string_view full = content;
  if (base.layout == erofs::Layout::kInline) {
    base.tail = content.substr(content.size() - tail);
    full.remove_suffix(tail);
  }
  if (!full.empty()) base.u = Blocks(full);
  Put(nid, base);
}

RawImage::Inode RawImage::File(std::uint64_t size,
                               const std::vector<erofs::ChunkIndex>& indices) const {
  Inode inode;
  inode.mode = S_IFREG | 0644;
  inode.size = size;
  inode.layout = erofs::Layout::kChunkBased;
  inode.u = erofs::kChunkFormatIndexes |
            static_cast<std::uint32_t>(std::countr_zero(ext.chunk_size / 4096));
  for (const auto& index : indices) AppendRaw(inode.tail, index);
  return inode;
}

std::string RawImage::BlobIdOf(std::size_t position) {
  return fmt::format("{:064x}", position + 1);
}

rafs::v6::BlobTableEntry& RawImage::AddBlob(std::uint32_t chunk_count,
                                            std::uint64_t uncompressed_size) {
  rafs::v6::BlobTableEntry entry{};
  const std::string id = BlobIdOf(blobs.size());
  std::memcpy(entry.blob_id, id.data(), sizeof entry.blob_id);
  entry.blob_index = static_cast<std::uint32_t>(blobs.size());
  entry.chunk_size = ext.chunk_size;
  entry.chunk_count = chunk_count;
  entry.compressor = static_cast<std::uint32_t>(codec::Algorithm::kZstd);
  entry.features = 1;  // aligned
  entry.compressed_size = uncompressed_size;
  entry.uncompressed_size = uncompressed_size;
  entry.ci_offset = entry.compressed_size;
  entry.ci_compressed_size = entry.ci_uncompressed_size = std::uint64_t{chunk_count} * 16;
  blobs.push_back(entry);
  return blobs.back();
}

std::string RawImage::Build() const {
  std::string image(blob_table_offset_, '\0');
  erofs::SuperBlock sb = super;
  rafs::v6::SuperExtension extension = ext;
  sb.extra_devices = static_cast<std::uint16_t>(blobs.size());
  extension.blob_table_offset = blob_table_offset_;
  extension.blob_table_size = static_cast<std::uint32_t>(blobs.size() * sizeof blobs[0]);
  extension.prefetch_table_offset = blob_table_offset_ + extension.blob_table_size;
  extension.prefetch_table_size = static_cast<std::uint32_t>(prefetch.size() * sizeof prefetch[0]);
  std::vector<erofs::DeviceSlot> devices(blobs.size());
  for (std::size_t i = 0; i < blobs.size(); ++i) {
    std::ranges::copy(blobs[i].blob_id, devices[i].tag);
    devices[i].blocks = static_cast<std::uint32_t>(blobs[i].uncompressed_size / kBlock);
  }
  PutTable(image, rafs::v6::kDeviceTableOffset, devices);
  PutTable(image, extension.blob_table_offset, blobs);
  PutTable(image, extension.prefetch_table_offset, prefetch);
  image.resize(meta_block_ * kBlock, '\0');
  image += meta_;
  Align(image, kBlock);
  extension.chunk_table_offset = image.size();
  extension.chunk_table_size = chunks.size() * sizeof(rafs::v6::ChunkRecord);
  PutTable(image, extension.chunk_table_offset, chunks);
  Align(image, kBlock);
  Patch(image, erofs::kSuperOffset, sb);
  Patch(image, rafs::v6::kExtensionOffset, extension);
  return image;
}

}  // namespace davit::testing
