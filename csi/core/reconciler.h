#pragma once
// Runs NodeOps::Recover at the start, when told to, and now and then.

#include <atomic>
#include <chrono>
#include <thread>

#include "common/base/sync.h"
#include "csi/core/node_ops.h"

namespace davit::csi {

/// Owns one thread ("csi-recover"). Thread-safe.
class Reconciler {
 public:
  struct Options {
    std::chrono::milliseconds interval{60'000};
    /// Between tries while the daemon is away.
    std::chrono::milliseconds retry{1'000};
  };
  /// `node` must outlive it.
  Reconciler(const Options& options, NodeOps& node);
  ~Reconciler();
  Reconciler(const Reconciler&) = delete;
  Reconciler& operator=(const Reconciler&) = delete;

  /// Runs it soon: the daemon has been started anew.
  void Trigger();
  /// Whether the mounts have been looked at since the start, however that went.
  bool ready() const { return ready_; }

 private:
  void Run();

  const Options options_;
  NodeOps& node_;
  std::stop_source stop_;
  std::atomic<bool> ready_ = false;
  Mutex mutex_;
  CondVar wake_;
  bool triggered_ DAVIT_GUARDED_BY(mutex_) = true;
  std::thread thread_;
};

}  // namespace davit::csi
