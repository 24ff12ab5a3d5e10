#pragma once
// Threads that carry range requests. They block in the scheduler and in the network, so there are
// as many as there are requests, within limits per host: a host that hangs must not take the
// threads of the others, nor background work those of readers.

#include <functional>
#include <list>
#include <map>
#include <stop_token>
#include <string>
#include <thread>

#include "common/base/context.h"
#include "common/base/sync.h"

namespace davit::storage {

/// Thread-safe. Threads are started when needed and end when idle.
class FetchPool {
 public:
  struct Job {
    Cause cause = Cause::kDemand;
    std::string host;
    std::stop_token hurry;  // a stop request makes it kDemand; call Poke() afterwards
    std::move_only_function<void()> run;
  };

  explicit FetchPool(int threads_per_host) : per_host_(threads_per_host) {}
  ~FetchPool() { Shutdown(); }
  FetchPool(const FetchPool&) = delete;
  FetchPool& operator=(const FetchPool&) = delete;

  /// Never blocks. After Shutdown() the job is run on the caller's thread: jobs end at once then,
  /// because everything they wait for has been cancelled.
  void Submit(Job job);
  /// A job's urgency changed.
  void Poke();
  /// Runs what is queued, joins.
  void Shutdown();

 private:
  struct Running {
    int all = 0;
    int background = 0;
  };
  std::list<Job>::iterator Next() DAVIT_REQUIRES(mutex_);
  void StartThreadIfNeeded() DAVIT_REQUIRES(mutex_);
  void Run();

  const int per_host_;
  Mutex mutex_;
  CondVar changed_;
  std::list<Job> queue_ DAVIT_GUARDED_BY(mutex_);
  std::map<std::string, Running> running_ DAVIT_GUARDED_BY(mutex_);
  std::map<std::thread::id, std::thread> threads_ DAVIT_GUARDED_BY(mutex_);
  std::list<std::thread> ended_ DAVIT_GUARDED_BY(mutex_);
  int idle_ DAVIT_GUARDED_BY(mutex_) = 0;
  bool closed_ DAVIT_GUARDED_BY(mutex_) = false;
};

}  // namespace davit::storage
