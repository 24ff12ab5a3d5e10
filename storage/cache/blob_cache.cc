#include "storage/cache/blob_cache.h"

#include <fmt/format.h>

#include <map>
#include <thread>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/sync.h"
#include "storage/cache/blob_core.h"
#include "storage/cache/cache_dir.h"
#include "storage/cache/cache_env.h"
#include "storage/cache/evictor.h"
#include "storage/cache/index_db.h"
#include "storage/sched/wake.h"

namespace davit::storage {
namespace {

// A full disk is not relieved a few bytes at a time.
constexpr std::uint64_t kLeastRoom = 16U << 20;

std::int64_t UnixNow(const Clock& clock) {
  return std::chrono::duration_cast<std::chrono::seconds>(clock.WallNow().time_since_epoch())
      .count();
}

// What a user of a blob holds. Its end is the end of the blob's use.
class BlobHandle final : public CachedBlob {
 public:
  BlobHandle(std::shared_ptr<BlobCore> core, std::shared_ptr<BlobUser> user,
             std::function<void()> on_release)
      : core_(std::move(core)), user_(std::move(user)), on_release_(std::move(on_release)) {}
  ~BlobHandle() override { on_release_(); }
  BlobHandle(const BlobHandle&) = delete;
  BlobHandle& operator=(const BlobHandle&) = delete;

  const BlobId& id() const override { return core_->id(); }
  std::uint64_t size() const override { return core_->size(); }
  Status Ensure(const Context& ctx, ByteRange range) override {
    return core_->Ensure(ctx, *user_, range);
  }
  Result<std::size_t> Read(const Context& ctx, std::uint64_t offset, MutableBytes out) override {
    return core_->Read(ctx, *user_, offset, out);
  }
  bool IsReady(ByteRange range) const override {
    return user_->admitted.load() && core_->IsReady(range);
  }
  std::shared_ptr<void> PinReady(ByteRange range) override {
    return user_->admitted.load() ? core_->PinReady(range) : nullptr;
  }
  int data_fd() const override { return core_->data().fd(); }
  const std::string& data_path() const override { return core_->data_path(); }
  BlobProgress progress() const override { return core_->progress(); }

 private:
  const std::shared_ptr<BlobCore> core_;
  const std::shared_ptr<BlobUser> user_;
  const std::function<void()> on_release_;
};

class BlobCacheImpl final : public BlobCache {
 public:
  BlobCacheImpl(CacheDir dir, const Options& options, CacheFiles& files, Scheduler& scheduler,
                Clock& clock)
      : env_(options, files, scheduler, clock), dir_(std::move(dir)) {}
  ~BlobCacheImpl() override;
  Status Start();

  Result<std::shared_ptr<CachedBlob>> OpenBlob(const BlobSpec& spec) override;
  void Prefetch(const std::shared_ptr<CachedBlob>& blob, std::vector<ByteRange> ranges,
                Cause cause) override;
  void Fill(const std::shared_ptr<CachedBlob>& blob, std::function<void()> on_complete,
            FillStart start) override;
  void StopBackground(const BlobId& id) override;
  Result<std::uint64_t> Evict(std::uint64_t bytes) override;
  Status Remove(const BlobId& id) override;
  std::vector<BlobInfo> List() const override;
  BlobProgress Progress(const BlobId& id) const override;
  Stats stats() const override;
  Result<std::vector<std::uint32_t>> AccessOrder(const BlobId& id) const override;
  Status Flush() override;

 private:
  struct Entry {
    std::shared_ptr<BlobCore> core;  // while it is open
    int users = 0;
    BlobProgress progress;  // when it was last open
    std::int64_t last_use = 0;
    std::uint64_t disk_bytes = 0;  // while it is not open
    IndexDb::BlobRow saved;        // in the database

    BlobProgress Known() const {
      return core != nullptr && core->loaded() != nullptr ? core->progress() : progress;
    }
  };
  /// Ends with the cache; handles that outlive it find it gone.
  struct Alive {
    Mutex mutex;
    BlobCacheImpl* cache DAVIT_GUARDED_BY(mutex);
  };
  std::shared_ptr<BlobCore> CoreOf(const BlobId& id) const;
  std::vector<std::shared_ptr<BlobCore>> OpenCores() const;
  void OnRelease(const BlobId& id, const std::shared_ptr<BlobUser>& user);
  void Maintain(const std::stop_token& stop);
  void MaintainOnce();
  void CloseUnused();
  void SaveIndex();
  Status LoadEntries();
  /// Whole blobs that nobody uses, least recently used first.
  std::uint64_t EvictUnused(std::uint64_t bytes) DAVIT_REQUIRES(evict_mutex_);
  std::uint64_t EvictBytes(std::uint64_t bytes) DAVIT_EXCLUDES(evict_mutex_);
  Result<std::uint64_t> RemoveFiles(const BlobId& id) DAVIT_REQUIRES(mutex_);
  void KeepWithinLimits();

  CacheEnv env_;
  const CacheDir dir_;
  const std::shared_ptr<Alive> alive_ = std::make_shared<Alive>();
  Mutex evict_mutex_;  // one eviction at a time; before mutex_ and the blobs' mutexes
  mutable Mutex mutex_;
  std::map<BlobId, Entry> entries_ DAVIT_GUARDED_BY(mutex_);
  WakeUp wake_ DAVIT_GUARDED_BY(mutex_);
  bool work_ DAVIT_GUARDED_BY(mutex_) = false;
  std::jthread maintenance_;
};

Status BlobCacheImpl::Start() {
  const unsigned cpus = std::max(1U, std::thread::hardware_concurrency());
  const auto decoders = env_.options.decode_threads > 0
                            ? static_cast<std::size_t>(env_.options.decode_threads)
                            : std::size_t{cpus};
  env_.decode = std::make_unique<ThreadPool>("cache-decode", decoders, 4096);
  env_.wake_maintenance = [this] {
    MutexLock lock(mutex_);
    work_ = true;
    wake_.Wake();
  };
  {
    MutexLock lock(alive_->mutex);
    alive_->cache = this;
  }
  env_.make_room = [this](std::uint64_t bytes) {
    return EvictBytes(std::max(bytes, kLeastRoom)) > 0;
  };
  DAVIT_TRY(LoadEntries());
  maintenance_ = std::jthread([this](const std::stop_token& stop) { Maintain(stop); });
  return {};
}

// The directory says which blobs there are; the database, what is known about them.
Status BlobCacheImpl::LoadEntries() {
  DAVIT_TRY_ASSIGN(env_.index, IndexDb::Open(dir_.path() + "/cache.db"));
  DAVIT_TRY_ASSIGN(const std::vector<BlobId> ids, dir_.ListBlobs());
  DAVIT_TRY_ASSIGN(const std::vector<IndexDb::BlobRow> rows, env_.index->Blobs());
  MutexLock lock(mutex_);
  for (const BlobId& id : ids) {
    DAVIT_TRY_ASSIGN(const auto data, env_.files.Open(dir_.BlobPath(id) + "/data"));
    DAVIT_TRY_ASSIGN(const std::uint64_t bytes, data->AllocatedBytes());
    entries_[id].disk_bytes = bytes;
    env_.bytes_on_disk.fetch_add(static_cast<std::int64_t>(bytes));
  }
  for (const IndexDb::BlobRow& row : rows) {
    const auto found = entries_.find(row.id);
    if (found == entries_.end()) {
      DAVIT_TRY(env_.index->RemoveBlob(row.id));
      continue;
    }
    found->second.progress = {row.bytes_ready, row.bytes_total, row.complete};
    found->second.last_use = row.last_use;
  }
  return {};
}

void BlobCacheImpl::SaveIndex() {
  std::vector<IndexDb::BlobRow> rows;
  {
    MutexLock lock(mutex_);
    for (auto& [id, entry] : entries_) {
      const BlobProgress progress = entry.Known();
      IndexDb::BlobRow row{id, progress.bytes_ready, progress.bytes_total, progress.complete,
                           entry.last_use};
      if (row == entry.saved) continue;
      entry.saved = row;
      rows.push_back(std::move(row));
    }
  }
  if (const Status status = env_.index->SaveBlobs(rows); !status.ok()) {
    log::Warn("the cache's statistics are not saved", {{"error", status.error()}});
  }
}

BlobCacheImpl::~BlobCacheImpl() {
  {
    MutexLock lock(alive_->mutex);
    alive_->cache = nullptr;
  }
  maintenance_.request_stop();
  if (maintenance_.joinable()) maintenance_.join();
  const auto cores = OpenCores();
  for (const auto& core : cores) core->CancelAll();
  env_.fetch.Shutdown();
  if (env_.decode) env_.decode->Shutdown();
  for (const auto& core : cores) {
    if (const Status status = core->Flush(); !status.ok()) {
      log::Warn("blob not flushed at the end",
                {{"blob", core->id().value}, {"error", status.error()}});
    }
    core->SaveAccessOrder();
  }
  if (env_.index) SaveIndex();
}

Result<std::shared_ptr<CachedBlob>> BlobCacheImpl::OpenBlob(const BlobSpec& spec) {
  DAVIT_TRY(BlobId::Parse(spec.id.value));
  if (!spec.source || !spec.load_map) {
    return Error(Code::kInvalidArgument, fmt::format("blob {}: no source", spec.id.value));
  }
  auto user = std::make_shared<BlobUser>();
  user->source = spec.source;
  user->load_map = spec.load_map;
  MutexLock lock(mutex_);
  Entry& entry = entries_[spec.id];
  if (entry.core && entry.core->size() != spec.uncompressed_size) {
    return Error(Code::kFailedPrecondition,
                 fmt::format("blob {} is in use with {} bytes, this image says {}", spec.id.value,
                             entry.core->size(), spec.uncompressed_size))
        .WithHint("one of the images is damaged");
  }
  if (!entry.core) {
    DAVIT_TRY_ASSIGN(entry.core, BlobCore::Open(env_, spec, dir_.BlobPath(spec.id)));
    entry.core->AdoptAccounted(std::exchange(entry.disk_bytes, 0));
  }
  entry.core->AddUser(user);
  ++entry.users;
  entry.last_use = UnixNow(env_.clock);
  return std::make_shared<BlobHandle>(entry.core, user, [alive = alive_, id = spec.id, user] {
    MutexLock alive_lock(alive->mutex);
    if (alive->cache != nullptr) alive->cache->OnRelease(id, user);
  });
}

void BlobCacheImpl::OnRelease(const BlobId& id, const std::shared_ptr<BlobUser>& user) {
  {
    MutexLock lock(mutex_);
    const auto found = entries_.find(id);
    if (found == entries_.end()) return;
    Entry& entry = found->second;
    entry.last_use = UnixNow(env_.clock);
    if (entry.core) entry.core->RemoveUser(user);
    if (--entry.users > 0) return;
    if (entry.core) entry.core->CancelAll();
  }
  env_.wake_maintenance();
}

std::shared_ptr<BlobCore> BlobCacheImpl::CoreOf(const BlobId& id) const {
  MutexLock lock(mutex_);
  const auto found = entries_.find(id);
  return found == entries_.end() ? nullptr : found->second.core;
}

std::vector<std::shared_ptr<BlobCore>> BlobCacheImpl::OpenCores() const {
  std::vector<std::shared_ptr<BlobCore>> cores;
  MutexLock lock(mutex_);
  for (const auto& [id, entry] : entries_) {
    if (entry.core) cores.push_back(entry.core);
  }
  return cores;
}

void BlobCacheImpl::Prefetch(const std::shared_ptr<CachedBlob>& blob, std::vector<ByteRange> ranges,
                             Cause cause) {
  if (const auto core = CoreOf(blob->id())) core->Prefetch(ranges, cause);
}

void BlobCacheImpl::Fill(const std::shared_ptr<CachedBlob>& blob, std::function<void()> on_complete,
                         FillStart start) {
  if (const auto core = CoreOf(blob->id())) core->Fill(std::move(on_complete), start);
}

void BlobCacheImpl::StopBackground(const BlobId& id) {
  if (const auto core = CoreOf(id)) core->StopBackground();
}

Result<std::uint64_t> BlobCacheImpl::Evict(std::uint64_t bytes) { return EvictBytes(bytes); }

std::uint64_t BlobCacheImpl::EvictBytes(std::uint64_t bytes) {
  MutexLock lock(evict_mutex_);
  std::uint64_t freed = EvictUnused(bytes);
  if (freed < bytes) freed += EvictLeastRecent(OpenCores(), bytes - freed);
  return freed;
}

std::uint64_t BlobCacheImpl::EvictUnused(std::uint64_t bytes) {
  std::uint64_t freed = 0;
  while (freed < bytes) {
    MutexLock lock(mutex_);
    auto oldest = entries_.end();
    for (auto it = entries_.begin(); it != entries_.end(); ++it) {
      if (it->second.core || it->second.disk_bytes == 0) continue;
      if (oldest == entries_.end() || it->second.last_use < oldest->second.last_use) oldest = it;
    }
    if (oldest == entries_.end()) break;
    const BlobId id = oldest->first;
    const Result<std::uint64_t> removed = RemoveFiles(id);
    if (!removed.ok()) {
      log::Warn("cannot remove a blob from the cache",
                {{"blob", id.value}, {"error", removed.error()}});
      break;
    }
    freed += *removed;
    env_.counters.evicted_bytes.fetch_add(*removed);
  }
  return freed;
}

// The bits go before the data they speak of. The blob is not open.
Result<std::uint64_t> BlobCacheImpl::RemoveFiles(const BlobId& id) {
  const std::string path = dir_.BlobPath(id);
  DAVIT_TRY(env_.files.Remove(path + "/ready"));
  DAVIT_TRY(SyncDirectory(path));
  DAVIT_TRY(env_.files.Remove(path + "/data"));
  DAVIT_TRY(RemoveTree(path));
  const std::uint64_t bytes = entries_[id].disk_bytes;
  env_.bytes_on_disk.fetch_sub(static_cast<std::int64_t>(bytes));
  entries_.erase(id);
  if (const Status status = env_.index->RemoveBlob(id); !status.ok()) {
    log::Warn("a removed blob stays in the index", {{"blob", id.value}, {"error", status.error()}});
  }
  return bytes;
}

void BlobCacheImpl::KeepWithinLimits() {
  const Options& options = env_.options;
  std::uint64_t wanted = 0;
  if (env_.OverBudget()) {
    const double low = static_cast<double>(options.budget_bytes) * options.low_watermark;
    wanted = static_cast<std::uint64_t>(static_cast<double>(env_.bytes_on_disk.load()) - low);
  }
  if (const auto free = env_.files.FreeBytes(dir_.path()); free.ok()) {
    // Some distance, so that background work does not start and stop at the limit.
    env_.disk_is_short = *free < options.reserve_free_bytes + options.reserve_free_bytes / 8;
    if (*free < options.reserve_free_bytes)
      wanted = std::max(wanted, options.reserve_free_bytes - *free);
  }
  if (wanted == 0) return;
  const std::uint64_t freed = EvictBytes(wanted);
  log::Info("evicted cached data", {{"bytes", freed}, {"wanted", wanted}});
}

Status BlobCacheImpl::Remove(const BlobId& id) {
  MutexLock lock(mutex_);
  const auto found = entries_.find(id);
  if (found == entries_.end())
    return Error(Code::kNotFound, "no blob " + id.value + " in the cache");
  Entry& entry = found->second;
  if (entry.users > 0 || (entry.core && !entry.core->idle())) {
    return Error(Code::kFailedPrecondition, "blob " + id.value + " is in use")
        .WithHint("unmount its images first");
  }
  if (entry.core) entry.disk_bytes = entry.core->accounted_bytes();
  entry.core.reset();
  DAVIT_TRY(RemoveFiles(BlobId(id)));
  return {};
}

std::vector<BlobCache::BlobInfo> BlobCacheImpl::List() const {
  std::vector<BlobInfo> out;
  MutexLock lock(mutex_);
  for (const auto& [id, entry] : entries_) {
    const bool in_use = entry.users > 0;
    out.push_back(BlobInfo{.id = id,
                           .progress = entry.Known(),
                           .in_use = in_use,
                           .last_use_unix = in_use ? UnixNow(env_.clock) : entry.last_use});
  }
  return out;
}

BlobProgress BlobCacheImpl::Progress(const BlobId& id) const {
  MutexLock lock(mutex_);
  const auto found = entries_.find(id);
  return found == entries_.end() ? BlobProgress{} : found->second.Known();
}

BlobCache::Stats BlobCacheImpl::stats() const {
  const CacheCounters& c = env_.counters;
  Stats out{.bytes_on_disk =
                static_cast<std::uint64_t>(std::max<std::int64_t>(0, env_.bytes_on_disk.load())),
            .blobs = 0,
            .hits = c.hits,
            .misses = c.misses,
            .fetched_bytes = c.fetched_bytes,
            .deduplicated_bytes = c.deduplicated_bytes,
            .corrupt_chunks = c.corrupt_chunks,
            .evicted_bytes = c.evicted_bytes,
            .write_errors = c.write_errors,
            .lost_chunks = c.lost_chunks};
  MutexLock lock(mutex_);
  out.blobs = entries_.size();
  return out;
}

Result<std::vector<std::uint32_t>> BlobCacheImpl::AccessOrder(const BlobId& id) const {
  const auto core = CoreOf(id);
  if (core && core->loaded() != nullptr) return core->AccessOrder();
  {
    MutexLock lock(mutex_);
    if (!entries_.contains(id))
      return Error(Code::kNotFound, "no blob " + id.value + " in the cache");
  }
  return ReadAccessFile(dir_.BlobPath(id) + "/access");
}

Status BlobCacheImpl::Flush() {
  Status first;
  for (const auto& core : OpenCores()) {
    Status status = core->Flush();
    if (!status.ok() && first.ok()) first = std::move(status);
    core->SaveAccessOrder();
  }
  return first;
}

void BlobCacheImpl::CloseUnused() {
  for (const auto& core : OpenCores()) {
    if (core->idle()) core->SaveAccessOrder();
  }
  std::vector<std::shared_ptr<BlobCore>> closed;  // destroyed outside of the lock
  MutexLock lock(mutex_);
  for (auto& [id, entry] : entries_) {
    if (!entry.core || entry.users > 0 || !entry.core->idle() || entry.core.use_count() > 1) {
      continue;
    }
    entry.progress = entry.Known();
    entry.disk_bytes = entry.core->accounted_bytes();
    closed.push_back(std::move(entry.core));
  }
}

void BlobCacheImpl::MaintainOnce() {
  env_.tick.fetch_add(1);
  std::vector<std::function<void()>> completions;
  for (const auto& core : OpenCores()) {
    if (const Status status = core->Flush(); !status.ok()) {
      log::Error("cannot make cached data durable", {{"error", status.error()}});
    }
    core->Pump();
    for (auto& done : core->TakeCompletions()) completions.push_back(std::move(done));
  }
  CloseUnused();
  KeepWithinLimits();
  SaveIndex();
  env_.buffers.Trim();
  env_.scratch.Trim();
  for (const auto& done : completions) done();
}

void BlobCacheImpl::Maintain(const std::stop_token& stop) {
  SetThreadName("cache-keeper");
  while (!stop.stop_requested()) {
    {
      MutexLock lock(mutex_);
      if (!work_) {
        wake_.Wait(mutex_, env_.clock, stop, {}, env_.clock.Now() + env_.options.flush_interval);
      }
      work_ = false;
    }
    if (!stop.stop_requested()) MaintainOnce();
  }
}

}  // namespace

Result<std::unique_ptr<BlobCache>> BlobCache::Open(const Options& options, CacheFiles& files,
                                                   Scheduler& scheduler, Clock& clock) {
  DAVIT_TRY_ASSIGN(CacheDir dir, CacheDir::Take(options.directory));
  auto cache = std::make_unique<BlobCacheImpl>(std::move(dir), options, files, scheduler, clock);
  DAVIT_TRY(cache->Start());
  return std::unique_ptr<BlobCache>(std::move(cache));
}

}  // namespace davit::storage
