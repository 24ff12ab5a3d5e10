#include "storage/cache/blob_core.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/log.h"

namespace davit::storage {
namespace {
// A read is served in pieces of this size, so that it needs only that much of the cache at once.
constexpr std::uint64_t kReadPiece = 4U << 20;
constexpr int kMaxRounds = 32;
constexpr int kMaxRepairs = 3;
}  // namespace

ChunkSpan LoadedMap::Span(ByteRange range) const {
  const std::uint64_t size = map->uncompressed_size();
  if (range.length == 0 || range.offset >= size) return {};
  const std::uint64_t end = range.offset + std::min(range.length, size - range.offset);
  ChunkSpan span;
  span.first = map->FindChunk(range.offset);
  span.last = map->FindChunk(end - 1);
  if (span.last < map->chunk_count() && map->ChunkAt(span.last).offset < end) ++span.last;
  return span;
}

bool LoadedMap::HasUnknown(ChunkSpan span) const {
  if (!partial) return false;
  for (std::uint32_t chunk = span.first; chunk < span.last; ++chunk) {
    if (partial->unknown.Test(chunk)) return true;
  }
  return false;
}

std::uint32_t LoadedMap::FindUnit(std::uint64_t compressed_offset) const {
  std::uint32_t low = 0;
  std::uint32_t high = map->unit_count();
  while (low < high) {
    const std::uint32_t middle = low + (high - low) / 2;
    if (map->UnitAt(middle).compressed_offset < compressed_offset) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}

BlobCore::BlobCore(CacheEnv& env, const BlobSpec& spec, std::string directory)
    : env_(env),
      id_(spec.id),
      size_(spec.uncompressed_size),
      directory_(std::move(directory)),
      data_path_(directory_ + "/data"),
      read_ahead_(ReadAhead::Limits{.max_window = 4 * env.options.max_request_bytes}) {}

void BlobCore::Account(std::int64_t bytes) {
  accounted_.fetch_add(static_cast<std::uint64_t>(bytes));
  env_.bytes_on_disk.fetch_add(bytes);
}

void BlobCore::Unaccount() { Account(-static_cast<std::int64_t>(accounted_.load())); }

Result<LoadedMap*> BlobCore::Load(const Context& ctx, BlobUser& user) {
  if (LoadedMap* loaded = loaded_.load()) {
    if (!user.admitted.load()) DAVIT_TRY(Admit(ctx, *loaded, user));
    return loaded;
  }
  MutexLock lock(load_mutex_);
  while (loading_) {
    if (!load_changed_.Wait(load_mutex_, ctx))
      DAVIT_TRY(ctx.Check("wait for the table of blob " + id_.value));
  }
  if (loaded_owner_) {
    LoadedMap* loaded = loaded_owner_.get();
    load_mutex_.unlock();
    const Status admitted = Admit(ctx, *loaded, user);
    load_mutex_.lock();
    DAVIT_TRY(Status(admitted));
    return loaded;
  }
  loading_ = true;
  load_mutex_.unlock();
  auto loaded = DoLoad(ctx, user);
  load_mutex_.lock();
  loading_ = false;
  load_changed_.NotifyAll();
  if (!loaded.ok()) return std::move(loaded).error().WithContext("table of blob " + id_.value);
  loaded_owner_ = *std::move(loaded);
  loaded_.store(loaded_owner_.get());
  user.admitted = true;
  return loaded_owner_.get();
}

void BlobCore::RecordAccess(LoadedMap& loaded, ChunkSpan span) {
  const std::uint32_t now = env_.tick.load(std::memory_order_relaxed);
  for (std::uint32_t group = span.first >> kGroupShift; group <= (span.last - 1) >> kGroupShift;
       ++group) {
    // The comparison keeps the line shared while nothing changes.
    if (loaded.stamps[group].load(std::memory_order_relaxed) != now) {
      loaded.stamps[group].store(now, std::memory_order_relaxed);
    }
  }
  if (loaded.touched.AllSet(span.first, span.last)) return;
  MutexLock lock(mutex_);
  for (std::uint32_t chunk = span.first; chunk < span.last; ++chunk) {
    if (loaded.touched.Set(chunk)) access_order_.push_back(chunk);
  }
}

std::vector<std::uint32_t> BlobCore::AccessOrder() const {
  MutexLock lock(mutex_);
  return access_order_;
}

Status BlobCore::Ensure(const Context& ctx, BlobUser& user, ByteRange range) {
  DAVIT_TRY_ASSIGN(LoadedMap * loaded, Load(ctx, user));
  const ChunkSpan span = loaded->Span(range);
  if (span.first >= span.last) return {};
  if (loaded->HasUnknown(span)) {
    return Error(Code::kFailedPrecondition,
                 fmt::format("blob {}: the image has neither a digest nor a checksum of what is at "
                             "{:#x}, so that it could not be verified",
                             id_.value, range.offset))
        .WithHint("convert the image again");
  }
  const bool demand = ctx.cause == Cause::kDemand;
  if (demand) RecordAccess(*loaded, span);
  if (loaded->ready.AllSet(span.first, span.last)) {
    if (demand) {
      env_.counters.hits.fetch_add(span.last - span.first, std::memory_order_relaxed);
      ReadAheadOnHit(user, *loaded, span);
    }
    return {};
  }
  if (demand) {
    std::uint32_t ready = 0;
    for (std::uint32_t chunk = span.first; chunk < span.last; ++chunk) {
      if (loaded->ready.Test(chunk)) ++ready;
    }
    env_.counters.hits.fetch_add(ready, std::memory_order_relaxed);
    env_.counters.misses.fetch_add(span.last - span.first - ready, std::memory_order_relaxed);
  }
  // Step by step, so that a range of gigabytes does not put thousands of requests into the queue.
  const std::uint64_t step_bytes = 4 * env_.options.max_request_bytes;
  for (std::uint32_t first = span.first; first < span.last;) {
    const std::uint64_t begin = loaded->map->ChunkAt(first).offset;
    std::uint32_t last = first + 1;
    while (last < span.last && loaded->map->ChunkAt(last).offset - begin < step_bytes) ++last;
    DAVIT_TRY(EnsureStep(ctx, user, *loaded, ChunkSpan{first, last}));
    first = last;
  }
  return {};
}

Result<std::size_t> BlobCore::Read(const Context& ctx, BlobUser& user, std::uint64_t offset,
                                   MutableBytes out) {
  if (offset >= size_ || out.empty()) return 0;
  const std::size_t total = std::min<std::uint64_t>(out.size(), size_ - offset);
  DAVIT_TRY_ASSIGN(LoadedMap * loaded, Load(ctx, user));
  std::size_t done = 0;
  int rounds = 0;
  int repairs = 0;
  while (done < total) {
    const ByteRange piece{offset + done, std::min<std::uint64_t>(total - done, kReadPiece)};
    DAVIT_TRY(Ensure(ctx, user, piece));
    const Result<bool> read = ReadPiece(*loaded, piece, out.subspan(done, piece.length));
    if (!read.ok()) {
      if (++repairs > kMaxRepairs) return read.error();
      DAVIT_TRY(Repair(ctx, *loaded, loaded->Span(piece), read.error()));
      continue;
    }
    if (!*read) {  // evicted in between
      if (++rounds < kMaxRounds) continue;
      return Error(Code::kResourceExhausted,
                   fmt::format("blob {}: what is fetched is evicted before it can be read",
                               id_.value))
          .WithHint("give the cache a larger budget");
    }
    done += piece.length;
    rounds = repairs = 0;
  }
  return done;
}

// False when it is not all there.
Result<bool> BlobCore::ReadPiece(const LoadedMap& loaded, ByteRange piece, MutableBytes out) {
  const ReadEpoch::Guard guard(epoch_);
  const ChunkSpan span = loaded.Span(piece);
  if (!loaded.ready.AllSet(span.first, span.last)) return false;
  Result<std::size_t> got = data_->ReadAt(piece.offset, out);
  if (!got.ok()) {
    return std::move(got).error().WithCode(Code::kInternal).WithHint("check the cache's disk");
  }
  if (*got == piece.length) return true;
  return Error(Code::kInternal,
               fmt::format("{}: short read at {}", data_path_, piece.offset + *got))
      .WithHint("the file is changed by somebody else; keep others out of the cache's directory");
}

bool BlobCore::IsReady(ByteRange range) const {
  const LoadedMap* loaded = loaded_.load();
  if (loaded == nullptr) return false;
  const ChunkSpan span = loaded->Span(range);
  if (span.first >= span.last) return true;
  return !loaded->HasUnknown(span) && loaded->ready.AllSet(span.first, span.last);
}

std::shared_ptr<void> BlobCore::PinReady(ByteRange range) {
  // The same order as a reader's guard: announce, then test. The evictor clears, then looks.
  pins_.fetch_add(1);
  std::shared_ptr<void> pin(this, [self = shared_from_this()](void*) { self->pins_.fetch_sub(1); });
  if (!IsReady(range)) return nullptr;
  return pin;
}

BlobProgress BlobCore::progress() const {
  const LoadedMap* loaded = loaded_.load();
  BlobProgress out{.bytes_ready = ready_bytes_.load(),
                   .bytes_total = loaded != nullptr ? loaded->total_bytes.load() : size_};
  out.complete = loaded != nullptr && ready_chunks_.load() == loaded->wanted_chunks();
  return out;
}

}  // namespace davit::storage
