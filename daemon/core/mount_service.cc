// The table of mounts: admission, waiting, listing, the end.

#include "daemon/core/mount_service.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/log.h"

namespace davit::daemon {
namespace {

std::string Normal(std::string_view path) {
  std::string out;
  for (char c : path) {
    if (c == '/' && out.ends_with('/')) continue;
    out += c;
  }
  while (out.size() > 1 && out.ends_with('/')) out.pop_back();
  return out;
}

Error Draining() {
  return Error(Code::kUnavailable, "davitd is stopping")
      .WithHint("try again when it is back")
      .WithRetryAfter(std::chrono::seconds(2));
}

Context ContextFor(Duration wait) { return Context{}.WithTimeout(wait); }

}  // namespace

MountService::MountService(const Options& options, Parts parts)
    : options_(options),
      parts_(std::move(parts)),
      mount_pool_("mount", static_cast<std::size_t>(options.threads), 100'000),
      unmount_pool_("unmount", 4, 100'000),
      ready_pool_("ready", 2, 100'000) {}

std::shared_ptr<MountService> MountService::Create(const Options& options, Parts parts) {
  return std::shared_ptr<MountService>(new MountService(options, std::move(parts)));
}

MountService::~MountService() = default;

Status MountService::CheckSame(const Entry& entry, const api::MountRequest& request) const {
  const api::MountRequest& known = entry.request;
  const auto differs = [&](std::string_view what, std::string_view is, std::string_view wanted) {
    return Error(Code::kAlreadyExists, fmt::format("mount {} exists with {} \"{}\", not \"{}\"",
                                                   request.id, what, is, wanted))
        .WithHint("unmount it first, or choose another id");
  };
  if (known.source != request.source) return differs("source", known.source, request.source);
  if (Normal(known.mountpoint) != Normal(request.mountpoint)) {
    return differs("mountpoint", known.mountpoint, request.mountpoint);
  }
  if (known.platform != request.platform) {
    return differs("platform", known.platform, request.platform);
  }
  if (known.plain_http != request.plain_http) {
    return differs("plain_http", known.plain_http ? "true" : "false",
                   request.plain_http ? "true" : "false");
  }
  if (known.fill != request.fill) {
    return differs("fill", known.fill ? "true" : "false", request.fill ? "true" : "false");
  }
  return {};
}

Status MountService::CheckMountpointFree(const api::MountRequest& request) const {
  const std::string wanted = Normal(request.mountpoint);
  for (const auto& [id, entry] : entries_) {
    const bool holds = entry->session != nullptr || entry->busy != Busy::kNo || entry->restored;
    if (id != request.id && holds && Normal(entry->request.mountpoint) == wanted) {
      return Error(Code::kAlreadyExists,
                   fmt::format("{} is the mount point of mount {} already", wanted, id))
          .WithHint("choose another directory");
    }
  }
  return {};
}

// The entry of a new mount, marked as mounting; or the existing one.
Result<MountService::EntryPtr> MountService::Admit(const api::MountRequest& request) {
  if (draining_) return Draining();
  const auto it = entries_.find(request.id);
  if (it != entries_.end()) {
    const EntryPtr& entry = it->second;
    if (entry->busy == Busy::kUnmounting) {
      return Error(Code::kAborted, fmt::format("mount {} is being unmounted", request.id))
          .WithHint("try again in a moment");
    }
    const bool failed = entry->busy == Busy::kNo && entry->session == nullptr;
    const Status same = CheckSame(*entry, request);
    if (!same && !failed) return same.error();
    if (entry->busy == Busy::kMounting) {
      return Error(Code::kAborted, fmt::format("mount {} is being made", request.id))
          .WithHint("try again in a moment");
    }
    if (!failed) {
      DAVIT_TRY(entry->credentials->Renew(request.registry_auth));
      return entry;
    }
  }
  DAVIT_TRY(CheckMountpointFree(request));
  auto entry = std::make_shared<Entry>();
  entry->request = request;
  entry->request.registry_auth = Secret();
  entry->credentials = std::make_shared<MountCredentials>(parts_.credentials);
  DAVIT_TRY(entry->credentials->Renew(request.registry_auth));
  if (it != entries_.end() && CheckSame(*it->second, request).ok()) {
    // One of an earlier run that could not be mounted so far: still the same content.
    entry->restored = it->second->restored;
    entry->pinned_digest = it->second->pinned_digest;
  }
  entry->info.id = request.id;
  entry->info.source = request.source;
  entry->info.volume = request.volume;
  entry->info.mountpoint = request.mountpoint;
  entry->info.data_path = "fuse";
  entries_[request.id] = entry;
  return entry;
}

MountService::OperationPtr MountService::Begin(Entry& entry, Busy what) {
  if (entry.operation != nullptr && !entry.operation->done) {  // only an unmount takes over
    End(entry, Error(Code::kCancelled, fmt::format("mount {} was unmounted", entry.request.id)));
  }
  entry.operation = std::make_shared<Operation>();
  entry.operation->for_more = what == Busy::kMounting && entry.session != nullptr;
  // A stop that was asked for concerns what ran then, also when that ended well all the same.
  if (what == Busy::kMounting) entry.stop = std::stop_source();
  entry.busy = what;
  entry.info.state = what == Busy::kMounting ? "mounting" : "unmounting";
  entry.changed_at = parts_.clock.Now();
  return entry.operation;
}

// The caller sets the state and the reason that others see.
void MountService::End(Entry& entry, std::optional<Error> error) {
  entry.busy = Busy::kNo;
  entry.only_filling = false;
  if (entry.operation != nullptr) {
    entry.operation->done = true;
    entry.operation->error = std::move(error);
  }
  entry.changed_at = parts_.clock.Now();
  changed_.NotifyAll();
}

Result<api::MountInfo> MountService::Mount(const api::MountRequest& request, Duration wait) {
  DAVIT_TRY(request.Validate());
  EntryPtr entry;
  OperationPtr operation;  // null: it is mounted as asked for
  bool start_mount = false;
  bool start_ready = false;
  {
    const MutexLock lock(mutex_);
    ForgetOldFailures();
    DAVIT_TRY_ASSIGN(entry, Admit(request));
    start_mount = entry->session == nullptr;
    start_ready = !start_mount && entry->reached < request.ready;
    if (start_mount || start_ready) {
      operation = Begin(*entry, Busy::kMounting);
      entry->request.ready = request.ready;
    }
  }
  if (start_mount) DAVIT_TRY(Submit(mount_pool_, entry, operation, &MountService::RunMount));
  if (start_ready) DAVIT_TRY(Submit(mount_pool_, entry, operation, &MountService::AfterMounted));
  return WaitForMount(entry, operation, wait);
}

Result<api::MountInfo> MountService::WaitForMount(const EntryPtr& entry,
                                                  const OperationPtr& operation, Duration wait) {
  EntryView view;
  {
    const Context ctx = ContextFor(wait);
    const MutexLock lock(mutex_);
    while (operation != nullptr && !operation->done) {
      if (!changed_.Wait(mutex_, ctx)) break;
    }
    if (operation != nullptr && operation->error) return *operation->error;
    if (entry->busy == Busy::kUnmounting || entry->info.state == "unmounting") {
      return Error(Code::kCancelled, fmt::format("mount {} was unmounted", entry->request.id));
    }
    view = ViewOf(*entry);
  }
  return WithProgress(std::move(view.info), view.image, view.session);
}

Result<bool> MountService::Unmount(const std::string& id, bool force, Duration wait) {
  DAVIT_TRY(api::CheckMountId(id));
  EntryPtr entry;
  OperationPtr operation;
  bool start = false;
  {
    const Context ctx = ContextFor(wait);
    const MutexLock lock(mutex_);
    const auto it = entries_.find(id);
    if (it == entries_.end()) return true;
    entry = it->second;
    if (entry->busy == Busy::kMounting) entry->stop.request_stop();
    // What no task works on is taken over at once.
    while (entry->busy == Busy::kMounting && !entry->only_filling && !entry->operation->queued) {
      if (!changed_.Wait(mutex_, ctx)) {
        return Error(Code::kAborted, fmt::format("mount {} is being made and is now stopped", id))
            .WithHint("try again in a moment");
      }
    }
    start = entry->busy != Busy::kUnmounting;
    operation = start ? Begin(*entry, Busy::kUnmounting) : entry->operation;
  }
  if (start) DAVIT_TRY(StartUnmount(entry, force));
  return WaitForUnmount(operation, wait);
}

Result<bool> MountService::WaitForUnmount(const OperationPtr& operation, Duration wait) {
  const Context ctx = ContextFor(wait);
  const MutexLock lock(mutex_);
  while (!operation->done) {
    if (!changed_.Wait(mutex_, ctx)) return false;
  }
  if (operation->error) return *operation->error;
  return true;
}

api::MountInfo MountService::WithProgress(api::MountInfo info, const std::shared_ptr<Image>& image,
                                          const std::shared_ptr<rafs::FuseSession>& session) {
  std::optional<Error> ahead;
  if (image != nullptr) {
    const storage::BlobProgress progress = image->progress();
    info.bytes_total = progress.bytes_total;
    info.bytes_ready = progress.bytes_ready;
    info.complete = progress.complete;
    if (!info.complete || info.state == "mounting") ahead = image->ahead_error();
  }
  if (session == nullptr) return info;
  const rafs::FuseStats stats = session->stats();
  info.reads = stats.reads;
  info.waited_reads = stats.waited_reads;
  info.read_bytes = stats.read_bytes;
  info.read_errors = stats.errors;
  if (!info.error.empty()) return info;
  if (const auto failure = session->LastReadFailure()) {
    info.error = fmt::format("reading inode {} at {} failed: {}", failure->inode, failure->offset,
                             failure->error.ToString());
    info.error_code = CodeName(failure->error.code());
    info.error_at_unix =
        std::chrono::duration_cast<std::chrono::seconds>(failure->at.time_since_epoch()).count();
  } else if (ahead) {
    info.error = "fetching ahead fails: " + ahead->ToString();
    info.error_code = CodeName(ahead->code());
  }
  return info;
}

Result<api::MountInfo> MountService::Get(const std::string& id) const {
  EntryView view;
  {
    const MutexLock lock(mutex_);
    const auto it = entries_.find(id);
    if (it == entries_.end()) {
      return Error(Code::kNotFound, fmt::format("there is no mount {}", id));
    }
    view = ViewOf(*it->second);
  }
  return WithProgress(std::move(view.info), view.image, view.session);
}

std::vector<api::MountInfo> MountService::List() const {
  std::vector<EntryView> found;
  {
    const MutexLock lock(mutex_);
    for (const auto& [id, entry] : entries_) found.push_back(ViewOf(*entry));
  }
  std::vector<api::MountInfo> out;
  out.reserve(found.size());
  for (EntryView& view : found) {
    out.push_back(WithProgress(std::move(view.info), view.image, view.session));
  }
  return out;
}

Status MountService::Prefetch(const std::string& id, const std::vector<std::string>& paths) {
  std::shared_ptr<Image> image;
  {
    const MutexLock lock(mutex_);
    const auto it = entries_.find(id);
    if (it == entries_.end()) {
      return Error(Code::kNotFound, fmt::format("there is no mount {}", id));
    }
    image = it->second->image;
  }
  if (image == nullptr) {
    return Error(Code::kFailedPrecondition, fmt::format("mount {} is not mounted", id));
  }
  return image->Prefetch(paths);
}

std::vector<MountService::Live> MountService::LiveMounts() const {
  const MutexLock lock(mutex_);
  std::vector<Live> out;
  for (const auto& [id, entry] : entries_) {
    if (entry->session == nullptr) continue;
    out.push_back({id, entry->session, entry->image, entry->LogFields()});
  }
  return out;
}

bool MountService::restored() const {
  const MutexLock lock(mutex_);
  return to_restore_.empty();
}

void MountService::ForgetOldFailures() {
  const TimePoint now = parts_.clock.Now();
  std::erase_if(entries_, [&](const auto& item) {
    const Entry& entry = *item.second;
    return entry.busy == Busy::kNo && entry.session == nullptr && !entry.restored &&
           now - entry.changed_at > options_.failed_kept;
  });
}

void MountService::Shutdown(OnStop how) {
  {
    const MutexLock lock(mutex_);
    if (draining_) return;
    draining_ = true;
    for (const auto& [id, entry] : entries_) {
      if (entry->busy == Busy::kMounting) entry->stop.request_stop();
    }
    to_restore_.clear();
    changed_.NotifyAll();
  }
  // What is under way ends by its stop token; what is queued sees that the end has come.
  mount_pool_.WaitIdle();
  ready_pool_.WaitIdle();
  unmount_pool_.WaitIdle();
  StopAll(how);
  MakeDurable();
  mount_pool_.Shutdown();
  unmount_pool_.Shutdown();
  ready_pool_.Shutdown();
}

void MountService::StopAll(OnStop how) {
  std::vector<std::shared_ptr<Entry>> all;
  {
    const MutexLock lock(mutex_);
    for (auto& [id, entry] : entries_) all.push_back(entry);
  }
  if (how == OnStop::kKeep) {
    // The threads of the sessions serve until the process ends; the mounts stay, without a server.
    static_cast<void>(new std::vector<std::shared_ptr<Entry>>(std::move(all)));
    return;
  }
  for (const EntryPtr& entry : all) {
    const Status submitted = unmount_pool_.Submit([this, entry, how] {
      const log::Scope scope(entry->LogFields());
      const Status ended = EndSession(entry, true);
      if (!ended) {
        log::Warn("cannot unmount", {{"error", ended.error()}});
      }
      if (how != OnStop::kForget) return;
      const Status removed = parts_.store.Remove(entry->request.id);
      if (!removed) log::Warn("cannot forget a mount", {{"error", removed.error()}});
    });
    if (!submitted) log::Warn("cannot end a mount", {{"error", submitted.error()}});
  }
  unmount_pool_.WaitIdle();
  const MutexLock lock(mutex_);
  for (const auto& [id, entry] : entries_) {
    if (entry->busy != Busy::kNo) End(*entry, Draining());  // somebody may wait for a fill
  }
  entries_.clear();
}

}  // namespace davit::daemon
