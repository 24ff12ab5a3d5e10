#include "csi/core/reconciler.h"

#include "common/base/log.h"
#include "common/base/thread_pool.h"

namespace davit::csi {

Reconciler::Reconciler(const Options& options, NodeOps& node)
    : options_(options), node_(node), thread_([this] { Run(); }) {}

Reconciler::~Reconciler() {
  stop_.request_stop();
  thread_.join();
}

void Reconciler::Trigger() {
  MutexLock lock(mutex_);
  triggered_ = true;
  wake_.NotifyAll();
}

void Reconciler::Run() {
  SetThreadName("csi-recover");
  Context ctx;
  ctx.stop = stop_.get_token();
  std::chrono::milliseconds pause{0};
  bool reported = false;
  while (!ctx.stop.stop_requested()) {
    {
      MutexLock lock(mutex_);
      const Context until = ctx.WithTimeout(pause);
      while (!triggered_ && wake_.Wait(mutex_, until)) {
      }
      triggered_ = false;
    }
    if (ctx.stop.stop_requested()) return;
    Status status = node_.Recover(ctx);
    if (ctx.stop.stop_requested()) return;
    if (status.ok()) {
      if (!ready_) log::Info("mounts agree with the journal");
      reported = false;
      ready_ = true;
      pause = options_.interval;
      continue;
    }
    // Once per outage; each volume that could not be recovered has been logged with its reason.
    if (!std::exchange(reported, true)) {
      log::Warn("recovery is not complete; it goes on", {{"error", status.error()}});
    }
    // Without a daemon nothing is known; with one, a broken volume must not keep the driver from
    // serving the others.
    if (status.error().code() == Code::kUnavailable && !ready_) {
      pause = options_.retry;
    } else {
      ready_ = true;
      pause = options_.interval;
    }
  }
}

}  // namespace davit::csi
