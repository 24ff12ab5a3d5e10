#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "rafs/image/bootstrap_layer.h"
#include "rafs/image/image.h"
#include "storage/blobmeta/toc.h"

namespace davit::rafs {
namespace {

using storage::ChunkDigests;

constexpr std::uint64_t kMaxCiBytes = 64ULL << 24;
constexpr std::uint64_t kMaxTocBytes = 64ULL << 10;

/// The chunk table's entries; for chunks that it does not have, the digests kept in the blob.
class CompletedDigests final : public ChunkDigests {
 public:
  CompletedDigests(std::shared_ptr<const ChunkDigests> table, std::string array)
      : table_(std::move(table)), array_(std::move(array)) {}

  Entry Get(std::uint32_t index) const override {
    Entry entry = table_->Get(index);
    Digest digest;
    const std::uint64_t at = std::uint64_t{index} * sizeof digest.bytes;
    if (!entry.digest && at + sizeof digest.bytes <= array_.size()) {
      std::memcpy(digest.bytes.data(), array_.data() + at, sizeof digest.bytes);
      entry.digest = digest;
    }
    return entry;
  }

 private:
  std::shared_ptr<const ChunkDigests> table_;
  std::string array_;
};

/// Loads the map of one blob; an object only to share the arguments between its steps.
class Loader {
 public:
  Loader(const Metadata& metadata, std::uint32_t blob, storage::BlobSource& source,
         const std::string& directory, TableMemory& memory)
      : metadata_(metadata),
        blob_(blob),
        record_(metadata.blobs()[blob]),
        source_(source),
        directory_(directory),
        memory_(memory) {}

  Result<std::shared_ptr<const storage::BlobMap>> Load(const Context& ctx) {
    DAVIT_TRY(CheckSizes());
    DAVIT_TRY_ASSIGN(
        TableMemory::Share share,
        memory_.Take(ctx, BytesForDecoding(), "the chunk info of blob " + record_.id.value));
    auto map = LoadUnlimited(ctx);
    if (!map) return map;
    fetched_.clear();
    share.KeepOnly(BytesKept());
    // The share lives as long as the map.
    auto* const bare = map->get();
    auto held =
        std::make_shared<std::pair<std::shared_ptr<const storage::BlobMap>, TableMemory::Share>>(
            *std::move(map), std::move(share));
    return std::shared_ptr<const storage::BlobMap>(std::move(held), bare);
  }

 private:
  /// From a bootstrap that may be hostile; everything below computes with them.
  Status CheckSizes() const {
    const storage::CiExpectation& ci = record_.ci;
    if (ci.ci_compressed_size <= kMaxCiBytes && ci.ci_uncompressed_size <= kMaxCiBytes) return {};
    return Error(Code::kDataLoss,
                 fmt::format("blob {}: {} bytes of chunk info", record_.id.value,
                             std::max(ci.ci_compressed_size, ci.ci_uncompressed_size)));
  }
  std::uint64_t DigestBytes() const {
    return HasInlinedDigests() ? std::uint64_t{record_.ci.chunk_count} * sizeof(Digest::bytes) : 0;
  }
  std::uint64_t UnitBytes() const {
    return (record_.features & storage::kBlobBatch) != 0
               ? std::uint64_t{record_.ci.chunk_count} * sizeof(std::uint32_t)
               : 0;
  }
  /// As fetched and a copy of that to be saved, twice what is decoded (a file and its array).
  std::uint64_t BytesForDecoding() const {
    return 2 * (record_.ci.ci_compressed_size + storage::kCiHeaderSize * 2) +
           2 * record_.ci.ci_uncompressed_size + 3 * DigestBytes() + 2 * UnitBytes() + IndexBytes();
  }
  /// The first blob's map makes an index of the bootstrap's chunk table. Nobody says how many
  /// records that has, but it is a part of the file.
  std::uint64_t IndexBytes() const {
    constexpr std::uint64_t kRecord = 80, kIndexEntry = 12;
    struct stat st{};
    const std::string path = directory_ + "/" + std::string(kBootstrapName);
    if (::stat(path.c_str(), &st) != 0 || st.st_size < 0) return 0;
    return static_cast<std::uint64_t>(st.st_size) / kRecord * kIndexEntry;
  }
  std::uint64_t BytesKept() const {
    return record_.ci.ci_uncompressed_size + (inlined_used_ ? DigestBytes() : 0) + UnitBytes();
  }

  Result<std::shared_ptr<const storage::BlobMap>> LoadUnlimited(const Context& ctx) {
    auto map = LoadOnce(ctx);
    if (!map && map.error().code() == Code::kDataLoss && used_saved_) {
      log::Warn("saved parts of a blob are not usable, reading it again",
                {{"blob", record_.id.value}, {"error", map.error()}});
      trust_saved_ = used_saved_ = false;
      map = LoadOnce(ctx);
    }
    if (map && !degraded_) Save();
    return map;
  }

  Result<std::shared_ptr<const storage::BlobMap>> LoadOnce(const Context& ctx) {
    DAVIT_TRY_ASSIGN(auto digests, metadata_.Digests(blob_));
    if (auto local = LoadLocal(ctx, digests)) return *local;
    std::string array;
    if (record_.ci.chunk_count > 0) {
      DAVIT_TRY_ASSIGN(const std::string stored,
                       ReadRange(ctx, {record_.ci.ci_offset,
                                       record_.ci.ci_compressed_size + storage::kCiHeaderSize}));
      DAVIT_TRY_ASSIGN(array, storage::DecodeStoredCi(AsBytes(stored), record_.ci));
    }
    return Make(ctx, std::move(array), std::move(digests));
  }

  /// From the file that came with the bootstrap. It is no more than a saved request: whatever is
  /// wrong with it, the blob itself is asked instead.
  std::optional<std::shared_ptr<const storage::BlobMap>> LoadLocal(
      const Context& ctx, const std::shared_ptr<const ChunkDigests>& digests) {
    const std::string path = directory_ + "/" + record_.id.value + std::string(kBlobMetaSuffix);
    const auto load = [&]() -> Result<std::shared_ptr<const storage::BlobMap>> {
      const std::uint64_t most =
          AlignUp(record_.ci.ci_uncompressed_size, storage::kCiHeaderSize) + storage::kCiHeaderSize;
      DAVIT_TRY_ASSIGN(std::string file, ReadFile(path, most));
      DAVIT_TRY_ASSIGN(std::string array, storage::DecodeLocalCi(AsBytes(file), record_.ci));
      file = {};
      return Make(ctx, std::move(array), digests);
    };
    auto map = load();
    if (map) return *std::move(map);
    if (map.error().code() != Code::kNotFound) {
      log::Warn("local chunk info is not usable, reading it from the blob",
                {{"file", path}, {"error", map.error()}});
    }
    return std::nullopt;
  }

  Result<std::shared_ptr<const storage::BlobMap>> Make(
      const Context& ctx, std::string array, std::shared_ptr<const ChunkDigests> digests) {
    if (HasInlinedDigests() && !CoversAll(*digests)) {
      auto inlined = ReadInlinedDigests(ctx, array);
      const bool damaged = !inlined && (inlined.error().code() == Code::kDataLoss ||
                                        inlined.error().code() == Code::kNotFound);
      if (damaged && used_saved_) {
        return Error(Code::kDataLoss, inlined.error().message());
      }
      if (inlined) {
        digests = std::make_shared<CompletedDigests>(std::move(digests), *std::move(inlined));
        inlined_used_ = true;
      } else if (damaged) {
        degraded_ = true;
        // Chunks that the image uses are in its chunk table; only others stay without a digest.
        log::Warn("the blob's own chunk digests are not usable",
                  {{"blob", record_.id.value}, {"error", inlined.error()}});
      } else {
        return std::move(inlined).error();
      }
    }
    return storage::MakeRafsBlobMap(std::move(array), record_.ci, std::move(digests));
  }

  bool HasInlinedDigests() const {
    constexpr std::uint32_t kNeeded =
        storage::kBlobInlinedDigest | storage::kBlobToc | storage::kBlobCapTarToc;
    return (record_.features & kNeeded) == kNeeded && record_.toc_digest != Digest{};
  }

  /// Merged images have no records of chunks whose files were removed by an upper layer. But the
  /// cache holds one map per blob for all images that use it, so a complete one is worth a request.
  bool CoversAll(const ChunkDigests& digests) const {
    for (std::uint32_t i = 0; i < record_.ci.chunk_count; ++i) {
      if (!digests.Get(i).digest) return false;
    }
    return true;
  }

  /// The chain of trust: the bootstrap has the digest of the table of contents, which has those of
  /// the digest array and of the chunk info. The latter matters as well: it decides where a chunk
  /// goes that the chunk table does not place.
  Result<std::string> ReadInlinedDigests(const Context& ctx, const std::string& ci_array) {
    const auto damaged = [&](std::string_view what) {
      return Error(Code::kDataLoss, fmt::format("blob {}: {}", record_.id.value, what));
    };
    if (record_.toc_size > kMaxTocBytes || record_.toc_size > record_.compressed_size) {
      return damaged("impossible size of the table of contents");
    }
    DAVIT_TRY_ASSIGN(
        const std::string tail,
        ReadRange(ctx, {record_.compressed_size - record_.toc_size, record_.toc_size}));
    if (Digest::Of(DigestAlgorithm::kSha256, AsBytes(tail)) != record_.toc_digest) {
      return damaged("its table of contents does not match the bootstrap");
    }
    DAVIT_TRY_ASSIGN(const auto toc,
                     storage::Toc::ParseTail(AsBytes(tail), record_.compressed_size));
    const auto* ci = toc.Find(storage::kSectionCi);
    const auto* digests = toc.Find(storage::kSectionDigest);
    if (ci == nullptr || digests == nullptr) return damaged("it has no section with digests");
    if (Digest::Of(DigestAlgorithm::kSha256, AsBytes(ci_array)) != ci->digest) {
      return damaged("its chunk info does not match its table of contents");
    }
    const std::uint64_t size = std::uint64_t{record_.ci.chunk_count} * sizeof(Digest::bytes);
    if (digests->uncompressed_size != size || digests->stored_size > size) {
      return damaged("its digest section has another size");
    }
    DAVIT_TRY_ASSIGN(const std::string stored,
                     ReadRange(ctx, {digests->offset, digests->stored_size}));
    return storage::ExtractSection(*digests, AsBytes(stored), size);
  }

  /// Kept in the directory: after a restart a complete blob needs no registry. Not synced, and
  /// trusted no more than the blob is; what a crash has damaged is read again.
  Result<std::string> ReadRange(const Context& ctx, ByteRange range) {
    const std::string path =
        fmt::format("{}/{}.{}-{}", directory_, record_.id.value, range.offset, range.length);
    if (trust_saved_) {
      auto saved = ReadFile(path, range.length);
      if (saved && saved->size() == range.length) {
        used_saved_ = true;
        return saved;
      }
    }
    DAVIT_TRY_ASSIGN(std::string fetched, Fetch(ctx, range));
    fetched_.emplace_back(path, fetched);
    return fetched;
  }

  void Save() {
    for (const auto& [path, part] : fetched_) {
      const Status kept = ReplaceFile(path, AsBytes(part));
      if (!kept) log::Warn("cannot keep a part of a blob", {{"error", kept.error()}});
    }
  }

  Result<std::string> Fetch(const Context& ctx, ByteRange range) {
    std::string out;
    storage::SourceRead how;
    DAVIT_TRY(source_.Read(ctx, range, how, [&](Bytes data) -> Status {
      if (data.size() > range.length - out.size()) {
        return Error(Code::kDataLoss, source_.Describe() + " sent more than was asked for");
      }
      out += AsText(data);
      return {};
    }));
    if (out.size() == range.length) return out;
    return Error(Code::kUnavailable, fmt::format("{} sent {} of {} bytes", source_.Describe(),
                                                 out.size(), range.length));
  }

  const Metadata& metadata_;
  std::uint32_t blob_;
  const BlobRecord& record_;
  storage::BlobSource& source_;
  const std::string& directory_;
  TableMemory& memory_;
  bool inlined_used_ = false;
  bool trust_saved_ = true;
  bool used_saved_ = false;
  bool degraded_ = false;  // something of the blob was damaged and is not used
  std::vector<std::pair<std::string, std::string>> fetched_;  // path and content
};

}  // namespace

std::function<Result<std::shared_ptr<const storage::BlobMap>>(const Context&)> MapLoader(
    std::shared_ptr<const Metadata> metadata, std::uint32_t blob,
    std::shared_ptr<storage::BlobSource> source, std::string directory,
    std::shared_ptr<TableMemory> memory) {
  return [metadata = std::move(metadata), blob, source = std::move(source),
          directory = std::move(directory), memory = std::move(memory)](
             const Context& ctx) -> Result<std::shared_ptr<const storage::BlobMap>> {
    if (blob >= metadata->blobs().size()) {
      return Error(Code::kNotFound, fmt::format("the image has no blob {}", blob));
    }
    auto map = Loader(*metadata, blob, *source, directory, *memory).Load(ctx);
    if (!map) {
      return std::move(map).error().WithContext("chunk info of " + source->Describe());
    }
    return map;
  };
}

}  // namespace davit::rafs
