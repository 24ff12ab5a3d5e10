#include "rafs/fs/filesystem.h"

#include <atomic>
#include <string>

#include "common/base/sync.h"
#include "rafs/fs/extents.h"

namespace davit::rafs {
struct Filesystem::State {
  struct Slot {
    std::atomic<storage::CachedBlob*> opened{nullptr};  // owner.get(), once it is there
    Mutex mutex;                                        // one opener at a time
    std::shared_ptr<storage::CachedBlob> owner DAVIT_GUARDED_BY(mutex);
  };

  State(std::unique_ptr<Metadata> m, BlobOpener o)
      : metadata(std::move(m)), open_blob(std::move(o)), slots(metadata->blobs().size()) {}

  // The blob at a position; opens it at the first call. An error is not kept: the next call tries
  // again.
  Result<storage::CachedBlob*> Open(std::uint32_t position) {
    if (position >= slots.size()) {
      return Error(Code::kNotFound, "blob " + std::to_string(position) +
                                        " is not in the image's table of " +
                                        std::to_string(slots.size()));
    }
    Slot& slot = slots[position];
    if (auto* blob = slot.opened.load(std::memory_order_acquire)) return blob;
    const MutexLock lock(slot.mutex);
    if (slot.owner == nullptr) {
      DAVIT_TRY_ASSIGN(slot.owner, open_blob(position));
      if (slot.owner == nullptr) return Error(Code::kInternal, "the blob opener gave no blob");
      slot.opened.store(slot.owner.get(), std::memory_order_release);
    }
    return slot.owner.get();
  }

  const std::unique_ptr<Metadata> metadata;
  const BlobOpener open_blob;
  std::vector<Slot> slots;
};

Filesystem::Filesystem(std::unique_ptr<Metadata> metadata, BlobOpener open_blob)
    : state_(std::make_unique<State>(std::move(metadata), std::move(open_blob))) {}
Filesystem::~Filesystem() = default;

const Metadata& Filesystem::metadata() const { return *state_->metadata; }

Result<std::shared_ptr<storage::CachedBlob>> Filesystem::Blob(std::uint32_t position) const {
  DAVIT_TRY(state_->Open(position));
  State::Slot& slot = state_->slots[position];
  const MutexLock lock(slot.mutex);
  return slot.owner;
}

Status Filesystem::Locate(InodeId file, std::uint64_t offset, std::uint64_t length,
                          std::vector<Piece>& out) const {
  if (length == 0) return {};
  ExtentScratch scratch;
  DAVIT_TRY(state_->metadata->Extents(file, offset, length, scratch.list()));
  std::uint64_t at = offset;
  for (const Extent& extent : scratch.list()) {
    DAVIT_TRY(CheckExtent(file, extent, at));
    if (extent.length > length - (at - offset)) return MalformedFile(file, "an extent is too long");
    at += extent.length;
    Piece piece{.blob = nullptr, .blob_offset = extent.blob_offset, .length = extent.length};
    if (extent.blob) {
      DAVIT_TRY_ASSIGN(piece.blob, state_->Open(*extent.blob));
      if (extent.blob_offset + extent.length > piece.blob->size()) {
        return MalformedFile(file, "its content lies past the end of its blob");
      }
    }
    out.push_back(piece);
  }
  return {};
}

bool Filesystem::IsLocal(std::span<const Piece> pieces) {
  for (const Piece& piece : pieces) {
    if (piece.blob != nullptr && !piece.blob->IsReady({piece.blob_offset, piece.length})) {
      return false;
    }
  }
  return true;
}

Status Filesystem::Ensure(const Context& ctx, std::span<const Piece> pieces) {
  for (const Piece& piece : pieces) {
    if (piece.blob == nullptr) continue;
    DAVIT_TRY(piece.blob->Ensure(ctx, {piece.blob_offset, piece.length}));
  }
  return {};
}

Result<std::size_t> Filesystem::Copy(const Context& ctx, std::span<const Piece> pieces,
                                     MutableBytes out) {
  std::size_t done = 0;
  for (const Piece& piece : pieces) {
    if (piece.length > out.size() - done) {
      return Error(Code::kInvalidArgument, "the buffer is smaller than the pieces to copy");
    }
    const MutableBytes part = out.subspan(done, piece.length);
    if (piece.blob == nullptr) {
      std::memset(part.data(), 0, part.size());
    } else {
      DAVIT_TRY_ASSIGN(const std::size_t got, piece.blob->Read(ctx, piece.blob_offset, part));
      if (got != part.size()) {
        return Error(Code::kDataLoss, "blob " + piece.blob->id().value + " ends at " +
                                          std::to_string(piece.blob_offset + got) +
                                          " inside a file's content");
      }
    }
    done += part.size();
  }
  return done;
}

Result<std::size_t> Filesystem::Read(const Context& ctx, InodeId file, std::uint64_t offset,
                                     MutableBytes out) const {
  std::vector<Piece> pieces;
  DAVIT_TRY(Locate(file, offset, out.size(), pieces));
  return Copy(ctx, pieces, out);
}

Status Filesystem::Ensure(const Context& ctx, InodeId file, ByteRange range) const {
  std::vector<Piece> pieces;
  DAVIT_TRY(Locate(file, range.offset, range.length, pieces));
  return Ensure(ctx, pieces);
}

}  // namespace davit::rafs
