#pragma once
// Threads that carry range requests. They block in the scheduler and in the network, so there are
// as many as there are requests, within limits per host: a host that hangs must not take the
// threads of the others, nor background work those of readers.

#include <chrono>
#include <functional>
#include <list>
#include <map>
#include <optional>
#include <stop_token>
#include <string>
#include <thread>

#include "common/base/clock.h"
#include "common/base/context.h"
#include "common/base/sync.h"

namespace davit::storage {

/// Thread-safe. Threads are started when needed and end when idle.
///
/// Order, within the limits of a host: by cause; within a cause the owner who has the fewest jobs
/// of it running there comes first, so that many readers of one image do not keep a reader of
/// another waiting; then first come first served.
///
/// kBackfill jobs of a fill that was asked for less than `quiet_window` ago wait until no demand
/// job is queued or running, and none has ended within `quiet_period`.
class FetchPool {
 public:
  struct Options {
    int threads_per_host = 12;
    std::chrono::milliseconds quiet_period{0};
    std::chrono::milliseconds quiet_window{0};
  };
  struct Job {
    Cause cause = Cause::kDemand;
    std::string host;
    std::string owner;      // the image it is for
    std::stop_token hurry;  // a stop request makes it kDemand; call Poke() afterwards
    std::move_only_function<void()> run;
    std::optional<TimePoint> fill_asked_at{};
    std::stop_token at_once{};  // a stop request ends the wait for quiet; call Wake() afterwards
  };

  explicit FetchPool(const Options& options) : options_(options) {}
  ~FetchPool() { Shutdown(); }
  FetchPool(const FetchPool&) = delete;
  FetchPool& operator=(const FetchPool&) = delete;

  /// Never blocks. After Shutdown() the job is run on the caller's thread: jobs end at once then,
  /// because everything they wait for has been cancelled.
  void Submit(Job job);
  /// A job's urgency changed.
  void Poke();
  /// A job need not wait for quiet any more.
  void Wake();
  /// Runs what is queued, joins.
  void Shutdown();

 private:
  struct Running {
    int all = 0;
    int background = 0;
    std::map<std::string, int> by_owner;  // no zeros
  };
  int RunningOf(const Job& job) const DAVIT_REQUIRES(mutex_);
  void Count(const Job& job, bool background, int change) DAVIT_REQUIRES(mutex_);
  std::list<Job>::iterator Next(TimePoint now) DAVIT_REQUIRES(mutex_);
  /// When a job that waits for quiet may run; nothing when none does.
  std::optional<TimePoint> NextDue() const DAVIT_REQUIRES(mutex_);
  TimePoint QuietAt(const Job& job) const DAVIT_REQUIRES(mutex_);
  void StartThreadIfNeeded() DAVIT_REQUIRES(mutex_);
  void Run();

  const Options options_;
  Mutex mutex_;
  CondVar changed_;
  std::list<Job> queue_ DAVIT_GUARDED_BY(mutex_);
  std::map<std::string, Running> running_ DAVIT_GUARDED_BY(mutex_);
  std::map<std::thread::id, std::thread> threads_ DAVIT_GUARDED_BY(mutex_);
  std::list<std::thread> ended_ DAVIT_GUARDED_BY(mutex_);
  int demand_ DAVIT_GUARDED_BY(mutex_) = 0;  // queued or running since they were submitted
  TimePoint last_demand_ DAVIT_GUARDED_BY(mutex_){};
  int idle_ DAVIT_GUARDED_BY(mutex_) = 0;
  bool closed_ DAVIT_GUARDED_BY(mutex_) = false;
};

}  // namespace davit::storage
