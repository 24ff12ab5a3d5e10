#pragma once
// A named pool of threads with a bounded queue. docs/threading.md lists every pool.

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "common/base/result.h"

namespace davit {

/// Thread-safe. Tasks must not throw; they log with the fields (log::Scope) of who submitted them.
/// The destructor runs what is queued, then joins.
class ThreadPool {
 public:
  using Task = std::move_only_function<void()>;

  /// `name` (at most 12 characters) names the threads; `queue_limit` bounds waiting tasks.
  ThreadPool(std::string name, std::size_t threads, std::size_t queue_limit = 1024);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// Blocks while the queue is full (back-pressure). kFailedPrecondition after Shutdown().
  Status Submit(Task task);
  /// Blocks until nothing is queued or running.
  void WaitIdle();
  /// Takes no more tasks, runs those queued, joins. Idempotent.
  void Shutdown();
  std::size_t thread_count() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

/// Names the calling thread (at most 15 characters are kept), for top, gdb and logs.
void SetThreadName(const std::string& name);

}  // namespace davit
