#pragma once
// The mounts of a daemon: made, listed, unmounted, remembered.

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <stop_token>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/sync.h"
#include "common/base/thread_pool.h"
#include "daemon/api/types.h"
#include "daemon/core/event_log.h"
#include "daemon/core/image.h"
#include "daemon/core/mount_credentials.h"
#include "daemon/core/mount_store.h"
#include "rafs/fuse/session.h"

namespace davit::daemon {

/// What happens to mounts when the daemon ends.
enum class OnStop {
  kUnmount,  // unmounted, and mounted again at the next start
  kKeep,     // left in place: dead until the next start
  kForget,   // unmounted for good
};

/// Thread-safe. One operation at a time on one id; operations run on a pool, callers wait for them
/// as long as they like. One lock, held for table look-ups only, never over I/O.
class MountService : public std::enable_shared_from_this<MountService> {
 public:
  struct Options {
    int threads = 8;
    std::chrono::milliseconds timeout{120'000};  // until the file system is mounted
    bool fill = true;                            // false: mounts never fill
    std::chrono::seconds failed_kept{600};       // how long a failed mount stays in the list
    std::chrono::milliseconds retry_min{2'000}, retry_max{60'000};  // of mounts that were there
    rafs::FuseOptions fuse;                                         // without a mountpoint
  };
  using Mounter = std::function<Result<std::unique_ptr<rafs::FuseSession>>(
      std::shared_ptr<const rafs::Filesystem>, const rafs::FuseOptions&)>;
  /// Prepares a mount point: takes leftovers away. `restored`: it was ours before a restart.
  using Preparer = std::function<Status(const std::string& mountpoint, bool restored)>;

  struct Parts {
    ImageProvider& images;
    EventLog& events;
    MountStore store;
    Mounter mounter;
    Preparer prepare;
    Clock& clock;
    std::shared_ptr<registry::CredentialProvider> credentials;  // configured ones; may be null
  };
  /// What `parts` refers to must outlive it.
  static std::shared_ptr<MountService> Create(const Options& options, Parts parts);
  ~MountService();
  MountService(const MountService&) = delete;
  MountService& operator=(const MountService&) = delete;

  /// Begins to mount again what the store remembers; returns at once. Damaged records are skipped.
  Status Restore();
  /// False while mounts of an earlier run have not been tried yet.
  bool restored() const;

  /// See Service.
  Result<api::MountInfo> Mount(const api::MountRequest& request, Duration wait);
  Result<bool> Unmount(const std::string& id, bool force, Duration wait);
  Result<api::MountInfo> Get(const std::string& id) const;
  std::vector<api::MountInfo> List() const;
  Status Prefetch(const std::string& id, const std::vector<std::string>& paths);

  /// The sessions that serve now, for statistics and the search for hung requests.
  struct Live {
    std::string id;
    std::shared_ptr<rafs::FuseSession> session;
    std::shared_ptr<Image> image;
    std::vector<log::Field> log_fields{};
  };
  std::vector<Live> LiveMounts() const;
  /// Notices mounts that somebody else took away, tries failed ones of an earlier run again,
  /// forgets old failures, makes records durable. To be called now and then.
  void Maintain();

  /// Refuses new mounts from now on; ends every mount. Idempotent.
  void Shutdown(OnStop how);

 private:
  enum class Busy { kNo, kMounting, kUnmounting };
  /// One mount, one request for more of a live mount, or one unmount. Who waits for it holds it:
  /// its outcome is for them only.
  struct Operation {
    bool for_more = false;  // the file system was mounted before: its failure leaves that alone
    bool queued = false;    // its task has not begun: an unmount takes over at once
    bool done = false;
    std::optional<Error> error;
  };
  struct Entry {
    api::MountRequest request;  // without registry_auth
    api::MountInfo info;        // progress is asked for when it is wanted
    Busy busy = Busy::kNo;
    std::shared_ptr<MountCredentials> credentials;
    std::shared_ptr<Image> image;
    std::shared_ptr<rafs::FuseSession> session;
    std::shared_ptr<Operation> operation;  // the last one; null: none yet
    std::stop_source stop;
    bool restored = false;
    std::string pinned_digest;
    TimePoint changed_at{};
    std::chrono::milliseconds retry_after{};
    api::Ready reached = api::Ready::kMounted;
    bool only_filling = false;  // kMounting, but no task runs: the fill will end it
    /// What every log line about it says. Of fields that never change.
    std::vector<log::Field> LogFields() const;
  };
  using EntryPtr = std::shared_ptr<Entry>;  // fields are guarded by mutex_

  /// What a reply is made of; outlives the entry.
  struct EntryView {
    api::MountInfo info;
    std::shared_ptr<Image> image;
    std::shared_ptr<rafs::FuseSession> session;
  };
  static EntryView ViewOf(const Entry& entry) { return {entry.info, entry.image, entry.session}; }

  MountService(const Options& options, Parts parts);

  // mount_service.cc
  Result<EntryPtr> Admit(const api::MountRequest& request) DAVIT_REQUIRES(mutex_);
  Status CheckSame(const Entry& entry, const api::MountRequest& request) const
      DAVIT_REQUIRES(mutex_);
  Status CheckMountpointFree(const api::MountRequest& request) const DAVIT_REQUIRES(mutex_);
  using OperationPtr = std::shared_ptr<Operation>;
  OperationPtr Begin(Entry& entry, Busy what) DAVIT_REQUIRES(mutex_);
  void End(Entry& entry, std::optional<Error> error) DAVIT_REQUIRES(mutex_);
  Result<api::MountInfo> WaitForMount(const EntryPtr& entry, const OperationPtr& operation,
                                      Duration wait);
  /// Adds what changes all the time; not under the lock.
  static api::MountInfo WithProgress(api::MountInfo info, const std::shared_ptr<Image>& image,
                                     const std::shared_ptr<rafs::FuseSession>& session);
  Result<bool> WaitForUnmount(const OperationPtr& operation, Duration wait);
  void ForgetOldFailures() DAVIT_REQUIRES(mutex_);
  void StopAll(OnStop how);
  void MakeDurable();

  // mount_work.cc: on the pools
  using Step = void (MountService::*)(const EntryPtr&, const OperationPtr&);
  /// Runs a step of an operation on a pool, unless an unmount takes over before its turn comes.
  Status Submit(ThreadPool& pool, const EntryPtr& entry, const OperationPtr& operation, Step step);
  void RunMount(const EntryPtr& entry, const OperationPtr& operation);
  Status MountNow(const Context& ctx, const EntryPtr& entry);
  void AfterMounted(const EntryPtr& entry, const OperationPtr& operation);
  void RunReady(const EntryPtr& entry, const OperationPtr& operation);
  void Reached(const EntryPtr& entry, api::Ready ready);
  /// Unless the operation is over, or another one has begun since.
  void Fail(const EntryPtr& entry, Error error, const OperationPtr& operation);
  void FailForMore(const EntryPtr& entry, Error error);
  Status StartUnmount(const EntryPtr& entry, bool force);
  void RunUnmount(const EntryPtr& entry, bool force);
  Status EndSession(const EntryPtr& entry, bool lazy);

  const Options options_;
  Parts parts_;
  mutable Mutex mutex_;
  CondVar changed_;
  std::map<std::string, EntryPtr> entries_ DAVIT_GUARDED_BY(mutex_);
  bool draining_ DAVIT_GUARDED_BY(mutex_) = false;
  std::set<std::string> unsynced_ DAVIT_GUARDED_BY(mutex_);    // ids whose record is new
  std::set<std::string> to_restore_ DAVIT_GUARDED_BY(mutex_);  // not tried yet
  ThreadPool mount_pool_;
  ThreadPool unmount_pool_;  // its own: mounts that wait for a registry must not hold it up
  ThreadPool ready_pool_;    // waits for `prefetched`
};

}  // namespace davit::daemon
