#include "rafs/convert/blob_reader.h"

#include <fcntl.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "common/base/fd.h"
#include "storage/blobmeta/ci.h"

namespace davit::rafs {
namespace {

constexpr std::uint64_t kWindowBytes = 4ULL << 20;
constexpr std::uint64_t kZeroPiece = 64U << 10;

class FileSource final : public storage::BlobSource {
 public:
  FileSource(UniqueFd fd, std::string path) : fd_(std::move(fd)), path_(std::move(path)) {}
  std::string Describe() const override { return path_; }
  std::string Host() const override { return "file"; }
  Result<std::uint64_t> Size(const Context&) override { return FileSize(fd_.get()); }
  Status Read(const Context& ctx, ByteRange range, storage::SourceRead& how,
              const storage::ByteSink& sink) override {
    how.served_by = path_;
    std::vector<std::byte> buffer(std::min<std::uint64_t>(range.length, 1U << 20));
    while (range.length > 0) {
      DAVIT_TRY(ctx.Check("read " + path_));
      const std::uint64_t want = std::min<std::uint64_t>(buffer.size(), range.length);
      DAVIT_TRY_ASSIGN(const std::size_t n,
                       PreadFull(fd_.get(), MutableBytes(buffer).first(want), range.offset));
      if (n < want) {
        return Error(Code::kDataLoss,
                     fmt::format("{} ends before byte {}", path_, range.offset + range.length));
      }
      DAVIT_TRY(sink(Bytes(buffer).first(n)));
      range.offset += n;
      range.length -= n;
    }
    return {};
  }

 private:
  UniqueFd fd_;
  std::string path_;
};

}  // namespace

Result<std::shared_ptr<storage::BlobSource>> FileBlobSource(const std::string& path) {
  DAVIT_TRY_ASSIGN(UniqueFd fd, OpenFile(path, O_RDONLY));
  return std::shared_ptr<storage::BlobSource>(std::make_shared<FileSource>(std::move(fd), path));
}

Result<std::unique_ptr<BlobReader>> BlobReader::Open(const Context& ctx, const Metadata& metadata,
                                                     std::uint32_t blob, const BlobOpener& open) {
  if (blob >= metadata.blobs().size()) {
    return Error(Code::kDataLoss, fmt::format("blob number {} is not in the blob table", blob));
  }
  const BlobRecord& record = metadata.blobs()[blob];
  auto load = [&]() -> Result<std::unique_ptr<BlobReader>> {
    DAVIT_TRY_ASSIGN(std::shared_ptr<storage::BlobSource> source, open(record));
    std::string stored;
    storage::SourceRead how;
    const ByteRange range{record.ci.ci_offset,
                          record.ci.ci_compressed_size + storage::kCiHeaderSize};
    DAVIT_TRY(source->Read(ctx, range, how, [&](Bytes data) -> Status {
      stored += AsText(data);
      return {};
    }));
    DAVIT_TRY_ASSIGN(std::string array, storage::DecodeStoredCi(AsBytes(stored), record.ci));
    DAVIT_TRY_ASSIGN(auto digests, metadata.Digests(blob));
    DAVIT_TRY_ASSIGN(auto map,
                     storage::MakeRafsBlobMap(std::move(array), record.ci, std::move(digests)));
    return std::unique_ptr<BlobReader>(new BlobReader(std::move(source), std::move(map)));
  };
  auto reader = load();
  if (!reader.ok()) return std::move(reader).error().WithContext("blob " + record.id.value);
  return reader;
}

Result<Bytes> BlobReader::Compressed(const Context& ctx, const storage::Unit& unit) {
  const std::uint64_t end = unit.compressed_offset + unit.compressed_size;
  if (unit.compressed_offset < window_offset_ || end > window_offset_ + window_.size()) {
    const std::uint64_t limit =
        std::max(end, std::min(map_->compressed_size(), unit.compressed_offset + kWindowBytes));
    window_.clear();
    window_offset_ = unit.compressed_offset;
    storage::SourceRead how;
    DAVIT_TRY(source_->Read(ctx, {window_offset_, limit - window_offset_}, how,
                            [this](Bytes data) -> Status {
                              window_ += AsText(data);
                              return {};
                            }));
  }
  return SubBytes(AsBytes(window_), unit.compressed_offset - window_offset_, unit.compressed_size,
                  "unit");
}

Status BlobReader::Decode(const Context& ctx, std::uint32_t index) {
  if (unit_ == index) return {};
  unit_.reset();
  const storage::Unit unit = map_->UnitAt(index);
  DAVIT_TRY_ASSIGN(const Bytes compressed, Compressed(ctx, unit));
  decoded_.resize(unit.uncompressed_size);
  DAVIT_TRY(map_->Decode(index, compressed, decoded_));
  unit_ = index;
  return {};
}

Result<Bytes> BlobReader::Chunk(const Context& ctx, std::uint32_t index) {
  if (index >= map_->chunk_count()) {
    return Error(Code::kDataLoss, fmt::format("chunk {} is past the {} chunks of the blob", index,
                                              map_->chunk_count()));
  }
  const storage::Chunk chunk = map_->ChunkAt(index);
  auto read = [&]() -> Result<Bytes> {
    DAVIT_TRY(Decode(ctx, chunk.unit));
    DAVIT_TRY_ASSIGN(const Bytes data,
                     SubBytes(decoded_, chunk.offset_in_unit, chunk.size, "chunk"));
    DAVIT_TRY(storage::VerifyChunk(*map_, chunk, data));
    return data;
  };
  auto data = read();
  if (!data.ok())
    return std::move(data).error().WithContext(
        fmt::format("{}: chunk {}", source_->Describe(), index));
  return data;
}

FileReader::FileReader(const Metadata& metadata, BlobOpener open)
    : metadata_(metadata), open_(std::move(open)), readers_(metadata.blobs().size()) {}

Result<BlobReader*> FileReader::Blob(const Context& ctx, std::uint32_t blob) {
  if (blob >= readers_.size()) {
    return Error(Code::kDataLoss, fmt::format("blob number {} is not in the blob table", blob));
  }
  if (readers_[blob] == nullptr) {
    DAVIT_TRY_ASSIGN(readers_[blob], BlobReader::Open(ctx, metadata_, blob, open_));
  }
  return readers_[blob].get();
}

Status FileReader::ReadExtent(const Context& ctx, const Extent& extent,
                              const storage::ByteSink& sink) {
  std::uint64_t left = extent.length;
  if (!extent.blob) {
    static constexpr std::array<std::byte, kZeroPiece> kZeros{};
    for (; left > 0; left -= std::min(left, kZeroPiece)) {
      DAVIT_TRY(sink(Bytes(kZeros).first(std::min(left, kZeroPiece))));
    }
    return {};
  }
  DAVIT_TRY_ASSIGN(BlobReader* const reader, Blob(ctx, *extent.blob));
  std::uint64_t offset = extent.blob_offset;
  while (left > 0) {
    const std::uint32_t index = reader->map().FindChunk(offset);
    if (index >= reader->map().chunk_count() || reader->map().ChunkAt(index).offset > offset) {
      return Error(Code::kDataLoss,
                   fmt::format("no chunk of blob {} holds its byte {}", *extent.blob, offset));
    }
    const storage::Chunk chunk = reader->map().ChunkAt(index);
    DAVIT_TRY_ASSIGN(const Bytes data, reader->Chunk(ctx, index));
    const Bytes piece = data.subspan(offset - chunk.offset);
    const std::uint64_t n = std::min<std::uint64_t>(left, piece.size());
    DAVIT_TRY(sink(piece.first(n)));
    offset += n;
    left -= n;
  }
  return {};
}

Status FileReader::Read(const Context& ctx, InodeId file, std::uint64_t size,
                        const storage::ByteSink& sink) {
  // In steps, so that the extents of a huge file are not all in memory.
  constexpr std::uint64_t kStep = 256ULL << 20;
  std::vector<Extent> extents;
  for (std::uint64_t offset = 0; offset < size; offset += kStep) {
    extents.clear();
    const std::uint64_t length = std::min(kStep, size - offset);
    DAVIT_TRY(metadata_.Extents(file, offset, length, extents));
    std::uint64_t covered = 0;
    for (const Extent& extent : extents) {
      DAVIT_TRY(ReadExtent(ctx, extent, sink));
      covered += extent.length;
    }
    if (covered != length) {
      return Error(Code::kDataLoss,
                   fmt::format("the file's chunks cover {} of {} bytes", covered, length));
    }
  }
  return {};
}

}  // namespace davit::rafs
