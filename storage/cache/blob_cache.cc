#include "storage/cache/blob_cache.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "storage/cache/blob_cache_impl.h"

namespace davit::storage {
namespace {

// A full disk is not relieved a few bytes at a time.
constexpr std::uint64_t kLeastRoom = 16U << 20;

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

  BlobCore& core() const { return *core_; }
  const std::shared_ptr<BlobUser>& user() const { return user_; }

 private:
  const std::shared_ptr<BlobCore> core_;
  const std::shared_ptr<BlobUser> user_;
  const std::function<void()> on_release_;
};

// OpenBlob() makes no others.
const BlobHandle& HandleOf(const CachedBlob& blob) { return dynamic_cast<const BlobHandle&>(blob); }

}  // namespace

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
    Entry& entry = entries_[id];
    const auto bytes = [&]() -> Result<std::uint64_t> {
      DAVIT_TRY_ASSIGN(const auto data, env_.files.Open(dir_.BlobPath(id) + "/data"));
      return data->AllocatedBytes();
    }();
    if (!bytes.ok()) {
      // One image's trouble. It may pass (too many open files), so nothing is thrown away.
      log::Warn("a cached blob cannot be opened; its images will not be readable",
                {{"blob", id.value}, {"error", bytes.error()}});
      continue;
    }
    entry.disk_bytes = *bytes;
    env_.bytes_on_disk.fetch_add(static_cast<std::int64_t>(*bytes));
  }
  for (const IndexDb::BlobRow& row : rows) {
    const auto found = entries_.find(row.id);
    if (found == entries_.end()) {
      if (const Status removed = env_.index->RemoveBlob(row.id); !removed.ok()) {
        log::Warn("a blob that is gone stays in the index",
                  {{"blob", row.id.value}, {"error", removed.error()}});
      }
      continue;
    }
    found->second.progress = {row.bytes_ready, row.bytes_total, row.complete};
    found->second.last_use = row.last_use;
  }
  return {};
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
      log::Warn(
          "blob not flushed at the end",
          {{"blob", core->id().value}, {"image", core->ImageNames()}, {"error", status.error()}});
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
  user->image = spec.image;
  MutexLock lock(mutex_);
  Entry& entry = FreeEntry(spec.id);
  if (entry.core && entry.core->size() != spec.uncompressed_size) {
    return Error(Code::kFailedPrecondition,
                 fmt::format("blob {} is in use with {} bytes, this image says {}", spec.id.value,
                             entry.core->size(), spec.uncompressed_size))
        .WithHint("one of the images is damaged");
  }
  if (!entry.core) DAVIT_TRY(OpenCore(spec, entry));
  entry.core->AddUser(user);
  ++entry.users;
  entry.last_use = UnixNow(env_.clock);
  return std::make_shared<BlobHandle>(entry.core, user, [alive = alive_, id = spec.id, user] {
    MutexLock alive_lock(alive->mutex);
    if (alive->cache != nullptr) alive->cache->OnRelease(id, user);
  });
}

BlobCacheImpl::Entry& BlobCacheImpl::FreeEntry(const BlobId& id) {
  for (;;) {
    Entry& entry = entries_[id];
    if (!entry.busy) return entry;
    changed_.Wait(mutex_);
  }
}

Status BlobCacheImpl::OpenCore(const BlobSpec& spec, Entry& entry) {
  entry.busy = true;
  mutex_.unlock();
  const std::string path = dir_.BlobPath(spec.id);
  const bool is_new = ::access(path.c_str(), F_OK) != 0;
  auto opened = BlobCore::Open(env_, spec, path);
  // Nothing of it stays: an empty directory would be listed after a restart.
  if (const Status removed = opened.ok() || !is_new ? Status() : RemoveTree(path); !removed.ok()) {
    log::Warn("an empty blob stays in the cache",
              {{"blob", spec.id.value}, {"error", removed.error()}});
  }
  mutex_.lock();
  entry.busy = false;
  changed_.NotifyAll();
  if (!opened.ok()) {
    if (entry.disk_bytes == 0) entries_.erase(spec.id);
    return std::move(opened).error();
  }
  entry.core = *std::move(opened);
  entry.core->AdoptAccounted(std::exchange(entry.disk_bytes, 0));
  return {};
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
  const BlobHandle& handle = HandleOf(*blob);
  handle.core().Prefetch(handle.user(), ranges, cause);
}

void BlobCacheImpl::Fill(const std::shared_ptr<CachedBlob>& blob, FillEnd on_end, FillStart start) {
  const BlobHandle& handle = HandleOf(*blob);
  handle.core().Fill(handle.user(), std::move(on_end), start);
}

void BlobCacheImpl::StopBackground(const BlobId& id) {
  if (const auto core = CoreOf(id)) core->StopBackground();
}

Result<std::uint64_t> BlobCacheImpl::Evict(std::uint64_t bytes) { return EvictBytes(bytes); }

Status BlobCacheImpl::Remove(const BlobId& id) {
  std::shared_ptr<BlobCore> closed;
  {
    MutexLock lock(mutex_);
    auto found = entries_.find(id);
    while (found != entries_.end() && found->second.busy) {
      changed_.Wait(mutex_);
      found = entries_.find(id);
    }
    if (found == entries_.end())
      return Error(Code::kNotFound, "no blob " + id.value + " in the cache");
    Entry& entry = found->second;
    // Whoever holds it beside the table (an eviction) counts it, too.
    if (entry.users > 0 || (entry.core && (!entry.core->idle() || entry.core.use_count() > 1))) {
      return Error(Code::kFailedPrecondition, "blob " + id.value + " is in use")
          .WithHint("unmount its images first");
    }
    if (entry.core) entry.disk_bytes = entry.core->accounted_bytes();
    closed = std::move(entry.core);
    entry.busy = true;
  }
  closed.reset();
  DAVIT_TRY(RemoveTaken(BlobId(id)));  // a copy: the caller's may be the key that goes
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

std::optional<Error> BlobCacheImpl::BackgroundError(const BlobId& id) const {
  const auto core = CoreOf(id);
  return core == nullptr ? std::nullopt : core->BackgroundError();
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

Result<std::unique_ptr<BlobCache>> BlobCache::Open(const Options& options, CacheFiles& files,
                                                   Scheduler& scheduler, Clock& clock) {
  DAVIT_TRY_ASSIGN(CacheDir dir, CacheDir::Take(options.directory));
  auto cache = std::make_unique<BlobCacheImpl>(std::move(dir), options, files, scheduler, clock);
  DAVIT_TRY(cache->Start());
  return std::unique_ptr<BlobCache>(std::move(cache));
}

}  // namespace davit::storage
