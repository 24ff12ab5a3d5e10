#include <fmt/format.h>
#include <sys/stat.h>

#include <map>

#include "rafs/convert/blob_reader.h"
#include "rafs/convert/convert.h"

namespace davit::rafs {
namespace {

class Checker {
 public:
  Checker(const Metadata& metadata, const BlobOpener& open, const StepProgress& progress)
      : metadata_(metadata),
        files_(metadata, open),
        unverifiable_(metadata.blobs().size()),
        progress_(progress) {}

  Result<CheckReport> Run(const Context& ctx) {
    const Status walked = Walk(metadata_, metadata_.root(),
                               [&](const std::string& path, const Attributes& a) -> Status {
                                 DAVIT_TRY(ctx.Check("check"));
                                 Note(path, CheckInode(a));
                                 return {};
                               });
    if (!walked.ok()) {
      if (walked.error().code() == Code::kCancelled ||
          walked.error().code() == Code::kDeadlineExceeded)
        return walked.error();
      Note("tree", walked);
    }
    for (const BlobRecord& blob : metadata_.blobs()) total_ += blob.ci.uncompressed_size;
    for (std::uint32_t blob = 0; blob < metadata_.blobs().size(); ++blob) {
      DAVIT_TRY(CheckBlob(ctx, blob));
    }
    CheckExtents(ctx);
    return std::move(report_);
  }

 private:
  void Note(const std::string& where, const Status& status) {
    if (status.ok()) return;
    report_.Add(where + ": " + status.error().ToString());
  }

  Status CheckInode(const Attributes& a) {
    // Another name of what was looked at already: a hard link.
    if (regular_.contains(a.id.value)) return {};
    ++report_.inodes;
    if (S_ISLNK(a.mode)) DAVIT_TRY(metadata_.ReadLink(a.id));
    DAVIT_TRY(metadata_.ListXattrs(a.id, [](std::string_view, Bytes) {}));
    if (S_ISREG(a.mode)) {
      ++report_.files;
      report_.bytes += a.size;
      regular_.emplace(a.id.value, a.size);
    }
    return {};
  }

  // Every chunk is fetched, decoded and compared with its digest. Only a registry that is away ends
  // the check; damaged chunks are counted and listed.
  Status CheckBlob(const Context& ctx, std::uint32_t blob) {
    auto reader = files_.Blob(ctx, blob);
    if (!reader.ok()) {
      if (reader.error().code() == Code::kUnavailable) return reader.error();
      Note(fmt::format("blob {}", blob), reader.error());
      return {};
    }
    for (std::uint32_t chunk = 0; chunk < (*reader)->map().chunk_count(); ++chunk) {
      DAVIT_TRY(ctx.Check("check"));
      ++report_.chunks;
      const storage::Chunk what = (*reader)->map().ChunkAt(chunk);
      done_ += what.size;
      if (progress_) progress_("chunks", done_, total_);
      if (!what.digest && !what.crc32c) {
        ++report_.unused_chunks;
        unverifiable_[blob].resize((*reader)->map().chunk_count());
        unverifiable_[blob][chunk] = true;
        continue;
      }
      const auto data = (*reader)->Chunk(ctx, chunk);
      if (data.ok()) continue;
      if (data.error().code() == Code::kUnavailable || data.error().code() == Code::kCancelled)
        return data.error();
      Note(fmt::format("blob {}", metadata_.blobs()[blob].id.value), data.error());
    }
    return {};
  }

  // Every file's pieces lie inside chunks of the blobs they name.
  void CheckExtents(const Context& ctx) {
    std::vector<Extent> extents;
    for (const auto& [inode, size] : regular_) {
      extents.clear();
      Status status = metadata_.Extents(InodeId{inode}, 0, size, extents);
      std::uint64_t covered = 0;
      for (const Extent& extent : extents) {
        covered += extent.length;
        if (status.ok() && extent.blob) status = CheckExtent(ctx, extent);
      }
      if (status.ok() && covered != size) {
        status = Error(Code::kDataLoss, fmt::format("chunks cover {} of {} bytes", covered, size));
      }
      Note(fmt::format("inode {}", inode), status);
    }
  }

  Status CheckExtent(const Context& ctx, const Extent& extent) {
    DAVIT_TRY_ASSIGN(BlobReader* const reader, files_.Blob(ctx, *extent.blob));
    const storage::BlobMap& map = reader->map();
    std::uint64_t offset = extent.blob_offset;
    const std::uint64_t end = offset + extent.length;
    for (std::uint32_t index = map.FindChunk(offset); offset < end; ++index) {
      if (index >= map.chunk_count() || map.ChunkAt(index).offset > offset) {
        return Error(Code::kDataLoss,
                     fmt::format("no chunk holds byte {} of blob {}", offset, *extent.blob));
      }
      DAVIT_TRY(CheckUsedChunk(*extent.blob, index));
      offset = map.ChunkAt(index).offset + map.ChunkAt(index).size;
      // The last chunk of a file is followed by padding up to the next block.
      if (offset < end) offset = AlignUp(offset, metadata_.info().block_size);
    }
    return {};
  }

  // Nothing can show that what is read from it is right.
  Status CheckUsedChunk(std::uint32_t blob, std::uint32_t chunk) {
    std::vector<bool>& unverifiable = unverifiable_[blob];
    if (unverifiable.empty() || !unverifiable[chunk]) return {};
    unverifiable[chunk] = false;
    --report_.unused_chunks;
    return Error(Code::kFailedPrecondition,
                 fmt::format("chunk {} of blob {} has neither a digest nor a checksum to verify",
                             chunk, metadata_.blobs()[blob].id.value));
  }

  const Metadata& metadata_;
  FileReader files_;
  CheckReport report_;
  std::map<std::uint64_t, std::uint64_t> regular_;
  std::vector<std::vector<bool>> unverifiable_;  // by blob, then chunk; empty: none of the blob's
  const StepProgress& progress_;
  std::uint64_t done_ = 0, total_ = 0;
};

}  // namespace

Result<CheckReport> CheckBootstrap(const Context& ctx, const Metadata& metadata,
                                   const BlobOpener& open_blob, const StepProgress& progress) {
  return Checker(metadata, open_blob, progress).Run(ctx);
}

}  // namespace davit::rafs
