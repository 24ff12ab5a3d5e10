// What runs on the pools: mounting, waiting for content, unmounting, upkeep.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <utility>

#include "common/base/log.h"
#include "daemon/core/mount_service.h"

namespace davit::daemon {
namespace {

std::int64_t UnixSeconds(Clock& clock) {
  return std::chrono::duration_cast<std::chrono::seconds>(clock.WallNow().time_since_epoch())
      .count();
}

std::uint64_t Milliseconds(Duration duration) {
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(duration).count());
}

}  // namespace

std::vector<log::Field> MountService::Entry::LogFields() const {
  std::vector<log::Field> out{{"mount", request.id}, {"image", request.source}};
  if (!request.volume.empty()) out.emplace_back("volume", request.volume);
  return out;
}

Status MountService::Submit(ThreadPool& pool, const EntryPtr& entry, const OperationPtr& operation,
                            Step step) {
  {
    const MutexLock lock(mutex_);
    // Who wants to unmount it may wait already, from before it was in a queue.
    operation->queued = true;
    changed_.NotifyAll();
  }
  Status submitted = pool.Submit([this, entry, operation, step] {
    {
      const MutexLock lock(mutex_);
      if (!std::exchange(operation->queued, false) || operation->done) return;
    }
    const log::Scope scope(entry->LogFields());
    (this->*step)(entry, operation);
  });
  if (!submitted) Fail(entry, submitted.error(), operation);
  return submitted;
}

void MountService::RunMount(const EntryPtr& entry, const OperationPtr& operation) {
  Context ctx = Context{}.WithTimeout(options_.timeout);
  {
    const MutexLock lock(mutex_);
    ctx.stop = entry->stop.get_token();
  }
  Status status = ctx.Check("mount");
  if (status) status = MountNow(ctx, entry);
  {
    const MutexLock lock(mutex_);
    to_restore_.erase(entry->request.id);
  }
  if (!status) return Fail(entry, std::move(status).error(), operation);
  parts_.events.Add("mounted", entry->request.id,
                    fmt::format("{} at {}", entry->request.source, entry->request.mountpoint));
  log::Info("mounted", {{"mountpoint", entry->request.mountpoint},
                        {"digest", entry->image->manifest_digest()}});
  AfterMounted(entry, operation);
}

// While an entry is busy, only the operation on it writes its fields; the lock is for readers.
Status MountService::MountNow(const Context& ctx, const EntryPtr& entry) {
  const TimePoint began = parts_.clock.Now();
  const api::MountRequest& request = entry->request;
  DAVIT_TRY_ASSIGN(std::shared_ptr<Image> image,
                   parts_.images.Open(ctx, {.source = request.source,
                                            .platform = request.platform,
                                            .plain_http = request.plain_http,
                                            .pinned_digest = entry->pinned_digest,
                                            .credentials = entry->credentials}));
  DAVIT_TRY(parts_.prepare(request.mountpoint, entry->restored));
  // Before the mount: after a crash in between it is mounted again, and found by its id.
  DAVIT_TRY(parts_.store.Save({.request = request,
                               .manifest_digest = image->manifest_digest(),
                               .platform = image->platform()}));
  {
    const MutexLock lock(mutex_);
    unsynced_.insert(request.id);
  }
  rafs::FuseOptions fuse = options_.fuse;
  fuse.mountpoint = request.mountpoint;
  fuse.log_fields = entry->LogFields();
  DAVIT_TRY_ASSIGN(std::unique_ptr<rafs::FuseSession> session,
                   parts_.mounter(image->filesystem(), fuse));
  const MutexLock lock(mutex_);
  entry->pinned_digest = image->manifest_digest();
  entry->info.manifest_digest = image->manifest_digest();
  entry->info.platform = image->platform();
  entry->info.mounted_at_unix = UnixSeconds(parts_.clock);
  entry->info.mount_ms = Milliseconds(parts_.clock.Now() - began);
  entry->image = std::move(image);
  entry->session = std::move(session);
  entry->reached = api::Ready::kMounted;
  return {};
}

// The file system is there; now to what else was asked for. Calls Reached() at once or later.
void MountService::AfterMounted(const EntryPtr& entry, const OperationPtr& operation) {
  std::shared_ptr<Image> image;
  api::Ready ready{};
  bool fill = false;
  {
    const MutexLock lock(mutex_);
    image = entry->image;
    ready = entry->request.ready;
    fill = (entry->request.fill && options_.fill) || ready == api::Ready::kComplete;
    entry->only_filling = ready == api::Ready::kComplete;
  }
  if (ready == api::Ready::kMounted) Reached(entry, ready);
  if (ready == api::Ready::kPrefetched) {
    // Others' lists may be stuck before it: a failure of this call is the operation's.
    static_cast<void>(Submit(ready_pool_, entry, operation, &MountService::RunReady));
  }
  if (!fill) return;
  // Who waits for all of it reads nothing before.
  const auto start =
      ready == api::Ready::kComplete ? storage::FillStart::kAtOnce : storage::FillStart::kWhenQuiet;
  const Status filling = image->Fill(
      [weak = weak_from_this(), weak_entry = std::weak_ptr<Entry>(entry), operation,
       ready](const Status& status) {
        const auto self = weak.lock();
        const auto filled = weak_entry.lock();
        if (self == nullptr || filled == nullptr) return;
        if (!status) {
          // Only who waits for all of it has a reason to fail, and only by its own fill.
          if (ready == api::Ready::kComplete) self->Fail(filled, status.error(), operation);
          return;
        }
        self->parts_.events.Add("complete", filled->request.id, "the whole image is local");
        self->Reached(filled, api::Ready::kComplete);
      },
      start);
  if (filling) return;
  log::Warn("cannot fetch the rest of the image", {{"error", filling.error()}});
  if (ready == api::Ready::kComplete) Fail(entry, filling.error(), operation);
}

void MountService::RunReady(const EntryPtr& entry, const OperationPtr& operation) {
  Context ctx;
  std::shared_ptr<Image> image;
  {
    const MutexLock lock(mutex_);
    ctx.stop = entry->stop.get_token();
    image = entry->image;
  }
  Status status = image->FetchListed(ctx);
  if (!status) return Fail(entry, std::move(status).error(), operation);
  Reached(entry, api::Ready::kPrefetched);
}

void MountService::Reached(const EntryPtr& entry, api::Ready ready) {
  const MutexLock lock(mutex_);
  entry->reached = std::max(entry->reached, ready);
  if (entry->busy != Busy::kMounting || entry->reached < entry->request.ready) return;
  entry->restored = false;
  entry->info.state = "mounted";
  entry->info.error.clear();
  entry->info.error_code.clear();
  End(*entry, std::nullopt);
}

// What was mounted before stays mounted, known and remembered: only those who asked for more learn
// of it.
void MountService::FailForMore(const EntryPtr& entry, Error error) {
  log::Warn("a mount cannot be made as ready as asked for", {{"error", error}});
  parts_.events.Add("error", entry->request.id, error.ToString());
  const MutexLock lock(mutex_);
  if (entry->busy != Busy::kMounting) return;
  entry->request.ready = entry->reached;
  entry->info.state = "mounted";
  End(*entry, std::move(error));
}

// The operation's end without a mount: nothing of it stays but the reason, and the record when it
// was there before.
void MountService::Fail(const EntryPtr& entry, Error error, const OperationPtr& operation) {
  const log::Scope scope(entry->LogFields());
  bool keep_record = false;
  bool for_more = false;
  {
    const MutexLock lock(mutex_);
    if (entry->busy != Busy::kMounting || entry->operation != operation) return;
    operation->queued = entry->only_filling = false;  // nobody takes over while this ends it
    keep_record = entry->restored || (draining_ && entry->session != nullptr);
    for_more = operation->for_more;
  }
  if (for_more) return FailForMore(entry, std::move(error));
  const Status ended = EndSession(entry, true);
  if (!ended) log::Warn("cannot unmount after a failure", {{"error", ended.error()}});
  if (!keep_record) {
    const Status removed = parts_.store.Remove(entry->request.id);
    if (!removed) log::Warn("cannot forget a mount", {{"error", removed.error()}});
  }
  log::Error("mount failed", {{"error", error}});
  parts_.events.Add("error", entry->request.id, error.ToString());
  const MutexLock lock(mutex_);
  entry->info.state = "failed";
  entry->info.error = error.ToString();
  entry->info.error_code = CodeName(error.code());
  entry->retry_after = entry->retry_after.count() == 0
                           ? options_.retry_min
                           : std::min(entry->retry_after * 2, options_.retry_max);
  End(*entry, std::move(error));
}

Status MountService::StartUnmount(const EntryPtr& entry, bool force) {
  Status submitted = unmount_pool_.Submit([this, entry, force] { RunUnmount(entry, force); });
  if (!submitted) {  // at the very end only
    const MutexLock lock(mutex_);
    End(*entry, submitted.error());
  }
  return submitted;
}

void MountService::RunUnmount(const EntryPtr& entry, bool force) {
  const std::string& id = entry->request.id;
  const log::Scope scope(entry->LogFields());
  Status status = EndSession(entry, force);
  if (status) status = parts_.store.Remove(id);
  std::set<std::string> needed;
  {
    const MutexLock lock(mutex_);
    if (!status) {
      // A refused unmount says nothing about the mount; one that lost its session does.
      entry->info.state = entry->session != nullptr ? "mounted" : "failed";
      if (entry->session == nullptr) {
        entry->info.error = status.error().ToString();
        entry->info.error_code = CodeName(status.error().code());
      }
      End(*entry, status.error());
    } else if (const auto it = entries_.find(id); it != entries_.end() && it->second == entry) {
      entries_.erase(it);
    }
    if (status) End(*entry, std::nullopt);
    to_restore_.erase(id);
    for (const auto& [other, kept] : entries_) needed.insert(kept->pinned_digest);
  }
  if (!status) {
    log::Warn("cannot unmount", {{"error", status.error()}});
    return;
  }
  log::Info("unmounted", {{"mountpoint", entry->request.mountpoint}});
  parts_.events.Add("unmounted", id, entry->request.mountpoint);
  needed.erase("");
  parts_.images.Prune(needed);
}

// Unmounts and gives the image back. Success when there is no session.
Status MountService::EndSession(const EntryPtr& entry, bool lazy) {
  std::shared_ptr<rafs::FuseSession> session;
  std::shared_ptr<Image> image;
  {
    const MutexLock lock(mutex_);
    session = entry->session;
  }
  if (session != nullptr && session->alive()) DAVIT_TRY(session->Unmount(lazy));
  {
    const MutexLock lock(mutex_);
    entry->session = nullptr;
    image = std::move(entry->image);
    entry->image = nullptr;
  }
  session.reset();  // joins its threads; not under the lock
  return {};
}

Status MountService::Restore() {
  DAVIT_TRY_ASSIGN(const std::vector<MountRecord> records, parts_.store.Load());
  std::vector<std::pair<EntryPtr, OperationPtr>> begun;
  {
    const MutexLock lock(mutex_);
    for (const MountRecord& record : records) {
      auto entry = std::make_shared<Entry>();
      entry->request = record.request;
      // Nobody waits for it; what was fetched before is still there.
      entry->request.ready = api::Ready::kMounted;
      entry->credentials = std::make_shared<MountCredentials>(parts_.credentials);
      entry->restored = true;
      entry->pinned_digest = record.manifest_digest;
      entry->info.id = record.request.id;
      entry->info.source = record.request.source;
      entry->info.volume = record.request.volume;
      entry->info.mountpoint = record.request.mountpoint;
      entry->info.manifest_digest = record.manifest_digest;
      entry->info.platform = record.platform;
      entry->info.data_path = "fuse";
      entries_[record.request.id] = entry;
      to_restore_.insert(record.request.id);
      begun.emplace_back(entry, Begin(*entry, Busy::kMounting));
    }
  }
  for (const auto& [entry, operation] : begun) {
    DAVIT_TRY(Submit(mount_pool_, entry, operation, &MountService::RunMount));
  }
  return {};
}

// Apart from mounting: a pod does not wait for a disk to write what only a crash of the machine
// would lose.
void MountService::MakeDurable() {
  std::set<std::string> ids;
  {
    const MutexLock lock(mutex_);
    ids.swap(unsynced_);
  }
  for (const std::string& id : ids) {
    const Status synced = parts_.store.Sync(id);
    if (!synced) {
      log::Warn("a mount record is not durable", {{"mount", id}, {"error", synced.error()}});
    }
  }
  parts_.images.Maintain();
}

void MountService::Maintain() {
  MakeDurable();
  for (const Live& live : LiveMounts()) {
    if (live.session->alive()) continue;
    EntryPtr entry;
    OperationPtr operation;
    {
      const MutexLock lock(mutex_);
      const auto it = entries_.find(live.id);
      if (it == entries_.end() || it->second->session != live.session ||
          it->second->busy != Busy::kNo || draining_) {
        continue;
      }
      entry = it->second;
      operation = Begin(*entry, Busy::kMounting);  // Fail() ends it
      operation->for_more = false;
    }
    Fail(entry,
         Error(Code::kFailedPrecondition,
               fmt::format("{} was unmounted by somebody else", entry->request.mountpoint)),
         operation);
  }
  std::vector<std::pair<EntryPtr, OperationPtr>> again;
  {
    const MutexLock lock(mutex_);
    if (draining_) return;
    ForgetOldFailures();
    const TimePoint now = parts_.clock.Now();
    for (const auto& [id, entry] : entries_) {
      if (entry->busy != Busy::kNo || entry->session != nullptr || !entry->restored) continue;
      if (now - entry->changed_at < entry->retry_after) continue;
      again.emplace_back(entry, Begin(*entry, Busy::kMounting));
    }
  }
  for (const auto& [entry, operation] : again) {
    const Status started = Submit(mount_pool_, entry, operation, &MountService::RunMount);
    if (!started) log::Warn("cannot mount again", {{"error", started.error()}});
  }
}

}  // namespace davit::daemon
