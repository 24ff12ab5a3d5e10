// The way back from a bootstrap to a tree and its blobs, for merging and dictionaries.

#include <fmt/format.h>
#include <sys/stat.h>

#include <cstring>
#include <unordered_map>
#include <unordered_set>

#include "rafs/builder/builder.h"
#include "rafs/layout/v6.h"

namespace davit::rafs {
namespace {

// Chunk lists are by index, and the indexes of a hostile table may be far apart; more slots than
// this per record are not believed.
constexpr std::uint64_t kMaxSlotsPerRecord = 64;
constexpr std::uint64_t kFreeSlots = 1ULL << 20;

Error Damaged(std::string what) {
  return Error(Code::kDataLoss, "bootstrap: " + std::move(what))
      .WithHint("the image is damaged; check it with 'davit check'");
}

class Reader {
 public:
  Reader(const Metadata& metadata, BlobSet& blobs)
      : metadata_(metadata),
        blobs_(blobs),
        first_blob_(static_cast<std::uint32_t>(blobs.blobs.size())),
        chunk_size_(metadata.info().chunk_size) {}

  Result<Tree> Read() {
    std::vector<BuiltBlob> blobs = Blobs();
    DAVIT_TRY(ReadChunkTable(blobs));
    blobs_.blobs.insert(blobs_.blobs.end(), std::make_move_iterator(blobs.begin()),
                        std::make_move_iterator(blobs.end()));
    Tree tree;
    DAVIT_TRY_ASSIGN(tree.root, Inode(metadata_.root(), ""));
    if (!tree.root->IsDirectory()) return Damaged("the root is no directory");
    std::string path;
    DAVIT_TRY(Children(metadata_.root(), *tree.root, path));
    return tree;
  }

 private:
  std::vector<BuiltBlob> Blobs() const {
    std::vector<BuiltBlob> blobs;
    for (const BlobRecord& record : metadata_.blobs()) {
      BuiltBlob blob;
      blob.id = record.id;
      blob.compressed_size = record.compressed_size;
      blob.uncompressed_size = record.ci.uncompressed_size;
      blob.features = record.features;
      blob.toc_size = record.toc_size;
      blob.toc_digest = record.toc_digest;
      // Since 2.2 the size of the object; before that only of its data.
      if ((record.features & storage::kBlobCapTarToc) != 0) blob.file_size = record.compressed_size;
      blob.ci_header.magic = storage::kCiMagic;
      blob.ci_header.features = record.features;
      blob.ci_header.compressor = static_cast<std::uint32_t>(record.ci.ci_compressor);
      blob.ci_header.record_count = record.ci.chunk_count;
      blob.ci_header.offset = record.ci.ci_offset;
      blob.ci_header.compressed_size = record.ci.ci_compressed_size;
      blob.ci_header.uncompressed_size = record.ci.ci_uncompressed_size;
      blobs.push_back(std::move(blob));
    }
    return blobs;
  }

  Status ReadChunkTable(std::vector<BuiltBlob>& blobs) {
    const Bytes image = metadata_.image();
    DAVIT_TRY_ASSIGN(const v6::Super super, v6::ParseSuper(image));
    DAVIT_TRY_ASSIGN(const Bytes table, SubBytes(image, super.ext.chunk_table_offset,
                                                 super.ext.chunk_table_size, "chunk table"));
    const std::uint64_t records = table.size() / sizeof(v6::ChunkRecord);
    std::uint64_t slots = 0;
    for (std::uint64_t i = 0; i < records; ++i) {
      DAVIT_TRY_ASSIGN(const auto record,
                       LoadAt<v6::ChunkRecord>(table, i * sizeof(v6::ChunkRecord), "chunk record"));
      if (record.blob_index >= blobs.size() ||
          record.chunk_index >= blobs[record.blob_index].ci_header.record_count ||
          record.uncompressed_size == 0 || record.uncompressed_size > chunk_size_) {
        return Damaged(fmt::format("record {} of the chunk table is impossible", i));
      }
      std::vector<StoredChunk>& chunks = blobs[record.blob_index].chunks;
      if (record.chunk_index >= chunks.size()) {
        slots += record.chunk_index + 1 - chunks.size();
        if (slots > kFreeSlots + kMaxSlotsPerRecord * records) {
          return Damaged("the chunk table lists too few of its blobs' chunks");
        }
        chunks.resize(record.chunk_index + 1);
      }
      chunks[record.chunk_index] = FromRecord(record);
    }
    return {};
  }

  static StoredChunk FromRecord(const v6::ChunkRecord& record) {
    StoredChunk chunk{.size = record.uncompressed_size};
    std::memcpy(chunk.digest.bytes.data(), record.digest, sizeof record.digest);
    if ((record.flags & v6::kChunkHasCrc32c) != 0) chunk.crc32c = record.crc32c;
    chunk.record.compressed_offset = record.compressed_offset;
    chunk.record.compressed_size = record.compressed_size;
    chunk.record.uncompressed_offset = record.uncompressed_offset;
    chunk.record.uncompressed_size = record.uncompressed_size;
    chunk.record.compressed = (record.flags & v6::kChunkCompressed) != 0;
    chunk.record.batch = (record.flags & v6::kChunkBatch) != 0;
    return chunk;
  }

  Status Children(InodeId dir, TreeInode& node, std::string& path) {
    if (path.size() > kMaxTreePath) {
      return Damaged(fmt::format("path '{}...' is too long", path.substr(0, 100)));
    }
    if (!directories_.insert(dir.value).second) {
      return Damaged(fmt::format("directory '{}' has more than one name", path));
    }
    std::vector<std::pair<std::string, InodeId>> entries;
    DAVIT_TRY(metadata_.ListDir(dir, 0, [&](const DirEntry& entry, std::uint64_t) {
      if (entry.name != "." && entry.name != "..") entries.emplace_back(entry.name, entry.id);
      return true;
    }));
    const std::size_t length = path.size();
    for (auto& [name, id] : entries) {
      path += '/';
      path += name;
      DAVIT_TRY_ASSIGN(auto child, Inode(id, path));
      if (child->IsDirectory()) DAVIT_TRY(Children(id, *child, path));
      if (!node.children.emplace(std::move(name), std::move(child)).second) {
        return Damaged(fmt::format("'{}' is there twice", path));
      }
      path.resize(length);
    }
    return {};
  }

  Result<std::shared_ptr<TreeInode>> Inode(InodeId id, const std::string& path) {
    DAVIT_TRY_ASSIGN(const Attributes attributes, metadata_.Stat(id));
    const bool linked = attributes.nlink > 1 && S_ISREG(attributes.mode);
    if (linked) {
      if (const auto known = linked_.find(id.value); known != linked_.end()) return known->second;
    }
    auto node = std::make_shared<TreeInode>();
    node->mode = attributes.mode;
    node->uid = attributes.uid;
    node->gid = attributes.gid;
    node->rdev = attributes.rdev;
    node->mtime = attributes.mtime;
    node->mtime_nsec = attributes.mtime_nsec;
    DAVIT_TRY(metadata_.ListXattrs(id, [&](std::string_view name, Bytes value) {
      node->xattrs.emplace(name, AsText(value));
    }));
    if (S_ISLNK(node->mode)) {
      DAVIT_TRY_ASSIGN(node->target, metadata_.ReadLink(id));
    }
    if (node->IsRegular()) {
      node->size = attributes.size;
      DAVIT_TRY(Chunks(id, path, *node));
      if (linked) linked_.emplace(id.value, node);
    }
    return node;
  }

  Status Chunks(InodeId id, const std::string& path, TreeInode& node) {
    const std::uint64_t count = DivUp(node.size, chunk_size_);
    if (count > metadata_.image().size() / sizeof(erofs::ChunkIndex)) {
      return Damaged(fmt::format("file '{}' has an impossible size", path));
    }
    std::vector<Extent> extents;
    for (std::uint64_t i = 0; i < count; ++i) {
      const std::uint64_t offset = i * chunk_size_;
      const std::uint64_t length = std::min<std::uint64_t>(chunk_size_, node.size - offset);
      extents.clear();
      DAVIT_TRY(metadata_.Extents(id, offset, length, extents));
      if (extents.size() != 1 || !extents[0].blob || extents[0].length != length) {
        return Error(
            Code::kUnsupported,
            fmt::format("file '{}' is not stored in chunks of {} bytes", path, chunk_size_));
      }
      DAVIT_TRY_ASSIGN(const ChunkRef ref, KnownChunk(extents[0], path));
      node.chunks.push_back(ref);
    }
    return {};
  }

  Result<ChunkRef> KnownChunk(const Extent& extent, const std::string& path) const {
    const ChunkRef ref{first_blob_ + *extent.blob, extent.chunk};
    if (ref.blob < blobs_.blobs.size() && ref.chunk < blobs_.blobs[ref.blob].chunks.size()) {
      const StoredChunk& chunk = blobs_.blobs[ref.blob].chunks[ref.chunk];
      if (chunk.size == extent.length && chunk.record.uncompressed_offset == extent.blob_offset) {
        return ref;
      }
    }
    return Damaged(fmt::format("file '{}' uses chunk {} of blob {}, which the chunk table lacks",
                               path, extent.chunk, *extent.blob));
  }

  const Metadata& metadata_;
  BlobSet& blobs_;
  const std::uint32_t first_blob_;
  const std::uint32_t chunk_size_;
  std::unordered_map<std::uint64_t, std::shared_ptr<TreeInode>> linked_;
  std::unordered_set<std::uint64_t> directories_;
};

void Renumber(TreeInode& dir, std::uint32_t offset, std::unordered_set<const TreeInode*>& done) {
  for (auto& [name, child] : dir.children) {
    if (child->IsDirectory()) Renumber(*child, offset, done);
    if (child->chunks.empty() || !done.insert(child.get()).second) continue;
    for (ChunkRef& ref : child->chunks) ref.blob += offset;
  }
}

}  // namespace

void MoveBlobs(Tree& tree, BlobSet&& from, BlobSet& into) {
  std::unordered_set<const TreeInode*> done;
  if (!into.blobs.empty()) {
    Renumber(*tree.root, static_cast<std::uint32_t>(into.blobs.size()), done);
  }
  into.blobs.insert(into.blobs.end(), std::make_move_iterator(from.blobs.begin()),
                    std::make_move_iterator(from.blobs.end()));
  from.blobs.clear();
}

Result<Tree> TreeFromBootstrap(const Metadata& metadata, BlobSet& blobs) {
  if (metadata.info().version != "v6") {
    return Error(Code::kUnsupported, fmt::format("a RAFS {} image cannot be merged or used as a "
                                                 "chunk dictionary",
                                                 metadata.info().version))
        .WithHint("convert it to v6 first");
  }
  const std::size_t before = blobs.blobs.size();
  auto tree = Reader(metadata, blobs).Read();
  if (!tree.ok()) blobs.blobs.resize(before);
  return tree;
}

}  // namespace davit::rafs
