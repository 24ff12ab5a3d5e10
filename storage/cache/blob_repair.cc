// What the disk below the cache has lost: sectors that cannot be read any more, a file that
// somebody cut short. It is forgotten, in memory and on disk, and fetched anew when it is wanted.
//
// All of it runs under durable_mutex_ on a thread of the cache; a reader waits as it would for the
// network. Claims keep others from fetching a chunk before its place on disk is in order.

#include <fmt/format.h>

#include <algorithm>

#include "common/base/log.h"
#include "storage/cache/blob_core.h"

namespace davit::storage {
namespace {

// A chunk that cannot be read again so soon is lost for good: its disk takes data and does not
// give it back.
constexpr std::chrono::seconds kRepairedFor{60};
constexpr std::size_t kMaxRepaired = 1U << 16;
constexpr std::uint64_t kBlock = 4096;

std::uint64_t End(const Chunk& chunk) { return chunk.offset + chunk.size; }

/// With the neighbours that share a block of the disk with it.
ChunkSpan WithNeighbours(const BlobMap& map, ChunkSpan span) {
  while (span.first > 0 &&
         End(map.ChunkAt(span.first - 1)) > map.ChunkAt(span.first).offset / kBlock * kBlock) {
    --span.first;
  }
  while (span.last < map.chunk_count() &&
         map.ChunkAt(span.last).offset < AlignUp(End(map.ChunkAt(span.last - 1)), kBlock)) {
    ++span.last;
  }
  return span;
}

}  // namespace

Status BlobCore::Repair(const Context& ctx, LoadedMap& loaded, ChunkSpan span, const Error& cause) {
  struct Outcome {
    CondVar changed;
    std::optional<Status> status;  // guarded by the blob's mutex
  };
  const auto outcome = std::make_shared<Outcome>();
  const auto run = [self = shared_from_this(), outcome, &loaded, span, cause] {
    Status status = self->RepairNow(loaded, span, cause);
    MutexLock lock(self->mutex_);
    outcome->status = std::move(status);
    outcome->changed.NotifyAll();
  };
  if (!env_.decode->Submit(run).ok()) run();
  MutexLock lock(mutex_);
  while (!outcome->status) {
    if (!outcome->changed.Wait(mutex_, ctx))
      DAVIT_TRY(ctx.Check("repair the cached blob " + id_.value));
  }
  return *outcome->status;
}

Status BlobCore::RepairNow(LoadedMap& loaded, ChunkSpan span, const Error& cause) {
  {
    MutexLock durable(durable_mutex_);
    DAVIT_TRY_ASSIGN(const std::uint64_t size, data_->Size());
    DAVIT_TRY(size < size_ ? RestoreSize(loaded, size) : DropUnreadable(loaded, span, cause));
  }
  Refill();
  return {};
}

Status BlobCore::KeepSize() {
  if (const auto size = data_->Size(); !size.ok() || *size >= size_) return {};
  LoadedMap* loaded = loaded_.load();
  if (loaded == nullptr) return {};
  {
    MutexLock durable(durable_mutex_);
    DAVIT_TRY_ASSIGN(const std::uint64_t size, data_->Size());
    if (size >= size_) return {};
    DAVIT_TRY(RestoreSize(*loaded, size));
  }
  Refill();
  return {};
}

// Whatever lay behind `size` is gone. Before the file has its size again, and zeros where the data
// was, nobody may think that it is there: neither a reader nor, after a crash, the next process.
Status BlobCore::RestoreSize(LoadedMap& loaded, std::uint64_t size) {
  const BlobMap& map = *loaded.map;
  std::vector<std::uint32_t> lost;
  for (std::uint32_t i = 0; i < map.chunk_count(); ++i) {
    if (loaded.Holds(i) && End(map.ChunkAt(i)) > size) lost.push_back(i);
  }
  log::Warn("a file of the cache was cut short by somebody; what it held is fetched anew",
            {{"blob", id_.value}, {"size", size}, {"expected", size_}, {"chunks", lost.size()}});
  if (!epoch_.Ready(kReaderPatience)) {
    return Error(Code::kUnavailable, data_path_ + " was cut short and is still being read");
  }
  auto claim = std::make_shared<Flight>();
  claim->cause = Cause::kBackfill;
  ClaimChunks(loaded, lost, claim);
  Status status;
  if (const auto forgotten = ForgetChunks(loaded, lost); !forgotten.ok()) {
    status = forgotten.error();
  } else if (!epoch_.WaitForReaders(kReaderPatience) || pins_.load() != 0) {
    status = Error(Code::kUnavailable, data_path_ + " was cut short and is still being read");
  } else {
    status = data_->Truncate(size_);
  }
  ReleaseEvicted(*claim);
  claim->changed.NotifyAll();
  if (status.ok()) {
    env_.counters.lost_chunks.fetch_add(lost.size());
    return {};
  }
  env_.counters.write_errors.fetch_add(1);
  return std::move(status).error().WithContext("repair the cached blob " + id_.value);
}

bool BlobCore::CanRead(const Chunk& chunk, std::vector<std::byte>& scratch) const {
  scratch.resize(chunk.size);
  const Result<std::size_t> got = data_->ReadAt(chunk.offset, scratch);
  return got.ok() && *got == chunk.size;
}

Status BlobCore::DropUnreadable(LoadedMap& loaded, ChunkSpan span, const Error& cause) {
  const BlobMap& map = *loaded.map;
  const TimePoint now = env_.clock.Now();
  std::erase_if(repaired_, [&](const auto& one) { return now - one.second > kRepairedFor; });
  span = WithNeighbours(map, span);
  std::vector<std::uint32_t> lost;
  std::vector<std::byte> scratch;
  bool again = false;
  for (std::uint32_t i = span.first; i < span.last; ++i) {
    const Chunk chunk = map.ChunkAt(i);
    if (!loaded.Holds(i) || CanRead(chunk, scratch)) continue;
    if (repaired_.contains(chunk.unit) || repaired_.size() >= kMaxRepaired) {
      again = true;
    } else {
      lost.push_back(i);
    }
  }
  if (lost.empty()) {
    // Somebody else was faster, or the disk has come to its senses: try again.
    if (!again) return {};
    return Error(cause).WithContext("it was fetched anew, and the cache's disk lost it again");
  }
  log::Warn(
      "cached chunks cannot be read and are fetched anew",
      {{"blob", id_.value}, {"chunks", lost.size()}, {"first", lost.front()}, {"error", cause}});
  if (!epoch_.Ready(kReaderPatience)) return cause;
  auto claim = std::make_shared<Flight>();
  claim->cause = Cause::kBackfill;
  const std::vector<std::uint32_t> claimed = ClaimChunks(loaded, lost, claim);
  Result<std::uint64_t> forgotten = ForgetChunks(loaded, lost);
  // A file system cannot write a part of a block that it cannot read; a hole is a new beginning.
  // When that fails, writing will tell.
  if (forgotten.ok() && epoch_.WaitForReaders(kReaderPatience) && pins_.load() == 0)
    static_cast<void>(PunchChunks(loaded, claimed));
  ReleaseEvicted(*claim);
  claim->changed.NotifyAll();
  if (forgotten.ok()) {
    env_.counters.lost_chunks.fetch_add(lost.size());
    for (const std::uint32_t chunk : lost) repaired_[map.ChunkAt(chunk).unit] = now;
    return {};
  }
  env_.counters.write_errors.fetch_add(1);
  return Error(cause).WithContext("it cannot be replaced (" + forgotten.error().message() + ")");
}

std::vector<std::uint32_t> BlobCore::ClaimChunks(const LoadedMap& loaded,
                                                 std::span<const std::uint32_t> chunks,
                                                 const FlightPtr& claim) {
  std::vector<std::uint32_t> out;
  MutexLock lock(mutex_);
  for (const std::uint32_t chunk : chunks) {
    const auto [it, added] = flights_.try_emplace(loaded.map->ChunkAt(chunk).unit, claim);
    if (it->second == claim) out.push_back(chunk);
  }
  return out;
}

// A blob that was complete is to be so again, even when nobody reads what was lost.
void BlobCore::Refill() {
  {
    MutexLock lock(mutex_);
    if (!std::exchange(background_.filled, false) || background_.fill_asked_at) return;
    background_.fill_asked_at = std::chrono::steady_clock::now();
  }
  env_.wake_maintenance();
}

}  // namespace davit::storage
