// Opening a blob: files, map, and what a crash left.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <map>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "storage/cache/blob_core.h"

namespace davit::storage {
namespace {

// What the ready bits are about: the pieces of the address space and what they must contain. How
// they are compressed and grouped does not matter, so it is left out.
void HashChunk(Hasher& hasher, const Chunk& chunk) {
  struct {
    std::uint64_t offset;
    std::uint32_t size;
    std::uint32_t crc;
    Digest digest;
    std::uint64_t has;
  } record{chunk.offset, chunk.size, chunk.crc32c.value_or(0), chunk.digest.value_or(Digest{}),
           (chunk.digest ? 1U : 0U) + (chunk.crc32c ? 2U : 0U)};
  static_assert(sizeof record == 56);
  hasher.Update(std::as_bytes(std::span(&record, 1)));
}

}  // namespace

Result<std::shared_ptr<BlobCore>> BlobCore::Open(CacheEnv& env, const BlobSpec& spec,
                                                 const std::string& directory) {
  const bool is_new = ::access(directory.c_str(), F_OK) != 0;
  DAVIT_TRY(MakeDirectories(directory));
  auto core = std::make_shared<BlobCore>(env, spec, directory);
  DAVIT_TRY_ASSIGN(core->data_, env.files.Open(core->data_path_));
  DAVIT_TRY_ASSIGN(auto ready, env.files.Open(directory + "/ready"));
  MutexLock lock(core->durable_mutex_);
  core->ready_file_ = std::make_unique<ReadyFile>(std::move(ready), is_new);
  DAVIT_TRY_ASSIGN(const std::uint64_t size, core->data_->Size());
  // A data file of another size is not the one that the bits are about.
  if (size != spec.uncompressed_size) {
    if (size != 0) {
      log::Warn("cached blob has another size; it starts anew",
                {{"blob", spec.id.value}, {"size", size}, {"expected", spec.uncompressed_size}});
      core->ForgetDigests();
    }
    DAVIT_TRY(core->ResetFiles(nullptr));
  }
  return core;
}

// The bits go first, durably; only then may the data change.
Status BlobCore::ResetFiles(const ReadyFile::Subject* subject) DAVIT_NO_THREAD_SAFETY_ANALYSIS {
  DAVIT_TRY(ready_file_->Invalidate());
  DAVIT_TRY(data_->Truncate(0));
  DAVIT_TRY(data_->Truncate(size_));
  if (subject != nullptr) DAVIT_TRY(ready_file_->Create(*subject));
  return {};
}

// Nobody shall look for content here any more.
void BlobCore::ForgetDigests() {
  if (!env_.index) return;
  if (const Status removed = env_.index->RemoveBlob(id_); !removed.ok()) {
    log::Warn("digests not forgotten", {{"blob", id_.value}, {"error", removed.error()}});
  }
}

Status BlobCore::CheckMap(LoadedMap& loaded) {
  const BlobMap& map = *loaded.map;
  if (map.uncompressed_size() != size_) {
    return Error(Code::kDataLoss, fmt::format("it describes {} bytes, the image's metadata {}",
                                              map.uncompressed_size(), size_))
        .WithHint("the image is damaged or was built wrongly; build it again");
  }
  Hasher hasher(DigestAlgorithm::kBlake3);
  std::uint32_t wanted = 0;
  std::uint64_t bytes = 0;
  for (std::uint32_t i = 0; i < map.chunk_count(); ++i) {
    const Chunk chunk = map.ChunkAt(i);
    if (chunk.size == 0 || chunk.offset > size_ || chunk.size > size_ - chunk.offset ||
        chunk.unit >= map.unit_count()) {
      return Error(Code::kDataLoss, fmt::format("chunk {} lies outside of the blob", i));
    }
    HashChunk(hasher, chunk);
    if (CanVerify(chunk)) {
      ++wanted;
      bytes += chunk.size;
      continue;
    }
    if (!loaded.partial) loaded.partial = std::make_unique<LoadedMap::Partial>(loaded.map);
    loaded.partial->unknown.Set(i);
    loaded.ready.Set(i);
  }
  if (wanted == 0 && loaded.partial) {
    return Error(Code::kFailedPrecondition,
                 "its chunks have neither digests nor checksums, so nothing that is fetched could "
                 "be verified")
        .WithHint("convert the image again with chunk digests");
  }
  loaded.wanted = wanted;
  loaded.total_bytes = bytes;
  const std::uint32_t algorithm = static_cast<std::uint32_t>(map.digest_algorithm());
  hasher.Update(std::as_bytes(std::span(&algorithm, 1)));
  loaded.identity = hasher.Finish();
  if (loaded.partial) loaded.map = loaded.partial->map;
  return {};
}

Status BlobCore::RecoverReady(LoadedMap& loaded) {
  const ReadyFile::Subject subject{loaded.identity, loaded.map->chunk_count(), size_};
  MutexLock lock(durable_mutex_);
  DAVIT_TRY_ASSIGN(bool known, ready_file_->Load(subject));
  DAVIT_TRY_ASSIGN(const std::uint64_t size, data_->Size());
  if (!known && size == size_) {
    DAVIT_TRY_ASSIGN(known, AdoptStored(loaded, subject));
  }
  if (!known || size != size_) {
    if (accounted_.load() != 0) ForgetDigests();
    DAVIT_TRY(ResetFiles(&subject));
    Unaccount();
    return {};
  }
  if (env_.options.verify_on_start) DAVIT_TRY(VerifyStored(loaded));
  std::uint64_t disk_bytes = 0;
  for (std::uint32_t i = 0; i < subject.chunk_count; ++i) {
    if (loaded.IsUnknown(i) || !ready_file_->IsDurable(i)) continue;
    loaded.ready.Set(i);
    ready_chunks_.fetch_add(1);
    const std::uint32_t chunk_size = loaded.map->ChunkAt(i).size;
    ready_bytes_.fetch_add(chunk_size);
    disk_bytes += DiskSize(chunk_size);
  }
  Account(static_cast<std::int64_t>(disk_bytes) - static_cast<std::int64_t>(accounted_.load()));
  return {};
}

// Another image's table verified what is stored: it may know other parts of the same blob. What
// this one would have verified, too, stays. (The rest keeps its place until the blob goes; see
// Learn().)
Result<bool> BlobCore::AdoptStored(const LoadedMap& loaded, const ReadyFile::Subject& subject)
    DAVIT_NO_THREAD_SAFETY_ANALYSIS {
  DAVIT_TRY_ASSIGN(const std::optional<ReadyFile::Subject> old, ready_file_->ReadSubject());
  if (!old || old->chunk_count != subject.chunk_count || old->data_size != subject.data_size) {
    return false;
  }
  DAVIT_TRY_ASSIGN(const bool readable, ready_file_->Load(*old));
  if (!readable) return false;
  std::vector<std::uint32_t> good;
  std::vector<std::byte> scratch;
  std::uint32_t stored = 0;
  for (std::uint32_t i = 0; i < subject.chunk_count; ++i) {
    if (!ready_file_->IsDurable(i)) continue;
    ++stored;
    if (!loaded.IsUnknown(i) && IsStored(*loaded.map, loaded.map->ChunkAt(i), scratch)) {
      good.push_back(i);
    }
  }
  log::Info("another image filled this blob; what this one can verify is kept",
            {{"blob", id_.value}, {"chunks", stored}, {"kept", good.size()}});
  DAVIT_TRY(ready_file_->Invalidate());
  DAVIT_TRY(ready_file_->Create(subject));
  DAVIT_TRY(ready_file_->Update(good, {}));
  return true;
}

bool BlobCore::IsStored(const BlobMap& map, const Chunk& chunk, std::vector<std::byte>& scratch) {
  scratch.resize(chunk.size);
  const Result<std::size_t> got = data_->ReadAt(chunk.offset, scratch);
  return got.ok() && *got == scratch.size() && VerifyChunk(map, chunk, scratch).ok();
}

// Compares what is stored with its digests; what differs is fetched again when it is wanted.
Status BlobCore::VerifyStored(LoadedMap& loaded) DAVIT_NO_THREAD_SAFETY_ANALYSIS {
  std::vector<std::uint32_t> bad;
  std::vector<std::byte> bytes;
  for (std::uint32_t i = 0; i < loaded.map->chunk_count(); ++i) {
    if (loaded.IsUnknown(i) || !ready_file_->IsDurable(i)) continue;
    if (!IsStored(*loaded.map, loaded.map->ChunkAt(i), bytes)) bad.push_back(i);
  }
  if (bad.empty()) return {};
  log::Warn("cached chunks are damaged and will be fetched again",
            {{"blob", id_.value}, {"chunks", bad.size()}, {"first", bad.front()}});
  env_.counters.corrupt_chunks.fetch_add(bad.size());
  return ready_file_->Update({}, bad);
}

Result<std::unique_ptr<LoadedMap>> BlobCore::DoLoad(const Context& ctx, const BlobUser& user) {
  DAVIT_TRY_ASSIGN(std::shared_ptr<const BlobMap> map, user.load_map(ctx));
  auto loaded = std::make_unique<LoadedMap>(std::move(map));
  DAVIT_TRY(CheckMap(*loaded));
  DAVIT_TRY(RecoverReady(*loaded));
  LoadAccessOrder(*loaded);
  return loaded;
}

// What is cached was verified by another image's map. This one may only use it when it would have
// verified the same.
Status BlobCore::Admit(const Context& ctx, LoadedMap& loaded, BlobUser& user) {
  auto map = user.load_map(ctx);
  if (!map.ok()) return std::move(map).error().WithContext("table of blob " + id_.value);
  LoadedMap own(*std::move(map));
  DAVIT_TRY(CheckMap(own));
  if (own.identity != loaded.identity) {
    DAVIT_TRY(Learn(loaded, own));
    Refill();  // what was complete may not be any more
  }
  user.admitted = true;
  return {};
}

// Two honest images differ only in what they do not know.
Status BlobCore::Learn(LoadedMap& loaded, const LoadedMap& own) {
  const auto refused = [this] {
    return Error(Code::kFailedPrecondition,
                 fmt::format("blob {} is in use with another table of chunks than this image has",
                             id_.value))
        .WithHint(
            "one of the images that use this blob is damaged or forged; unmount the other one");
  };
  if ((!loaded.partial && !own.partial) || own.map->chunk_count() != loaded.map->chunk_count() ||
      own.map->digest_algorithm() != loaded.map->digest_algorithm()) {
    return refused();
  }
  MutexLock learning(learn_mutex_);
  std::vector<std::uint32_t> news;
  for (std::uint32_t i = 0; i < own.map->chunk_count(); ++i) {
    const Chunk theirs = loaded.map->ChunkAt(i);
    const Chunk ours = own.map->ChunkAt(i);
    if (theirs.offset != ours.offset || theirs.size != ours.size) return refused();
    if (!CanVerify(ours)) continue;
    if (!CanVerify(theirs)) {
      news.push_back(i);
    } else if (theirs.digest != ours.digest || theirs.crc32c != ours.crc32c) {
      return refused();
    }
  }
  if (news.empty()) return {};
  // Taken, so that nobody fetches or evicts their units while the disk is asked what it has of
  // them.
  auto claim = std::make_shared<Flight>();
  claim->cause = Cause::kBackfill;
  const std::vector<std::uint32_t> claimed = ClaimChunks(loaded, news, claim);
  const std::vector<std::uint32_t> here = StoredUnits(*own.map, claimed);
  {
    LoadedMap::Partial& partial = *loaded.partial;
    MutexLock lock(mutex_);
    ++partial.lessons;  // what is on its way may have left these chunks unverified
    claim->lessons = partial.lessons.load();
    for (const std::uint32_t i : news) {
      partial.map->Learn(i, own.map->ChunkAt(i));
      partial.learned.Set(i);
      loaded.total_bytes += own.map->ChunkAt(i).size;
      ++loaded.wanted;
      // In this order: nobody may see a chunk as known and still as ready.
      loaded.ready.Clear(i);
      partial.unknown.Clear(i);
    }
  }
  if (!here.empty()) Publish(*claim, here);
  ReleaseEvicted(*claim);
  claim->changed.NotifyAll();
  return {};
}

// The units of which all these chunks are on disk: from an image that knew them before a restart.
std::vector<std::uint32_t> BlobCore::StoredUnits(const BlobMap& map,
                                                 std::span<const std::uint32_t> chunks) {
  std::map<std::uint32_t, bool> units;
  std::vector<std::byte> scratch;
  for (const std::uint32_t i : chunks) {
    const Chunk chunk = map.ChunkAt(i);
    bool& all = units.try_emplace(chunk.unit, true).first->second;
    all = all && IsStored(map, chunk, scratch);
  }
  std::vector<std::uint32_t> out;
  for (const auto& [unit, all] : units) {
    if (all) out.push_back(unit);
  }
  return out;
}

}  // namespace davit::storage
