#pragma once
// One CSI call on its way through a thread pool. For csi/rpc only: it shows gRPC headers.

#include <grpcpp/grpcpp.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <stop_token>
#include <utility>

#include "common/base/context.h"
#include "common/base/thread_pool.h"

namespace davit::csi {

/// Bounds how many calls wait, so that a flood of them cannot use up the memory.
class CallQueue {
 public:
  CallQueue(std::string name, std::size_t threads, int limit)
      : limit_(limit), pool_(std::move(name), threads, static_cast<std::size_t>(limit)) {}

  /// False when too many calls wait.
  bool Run(ThreadPool::Task task) {
    if (waiting_.fetch_add(1) >= limit_) {
      waiting_.fetch_sub(1);
      return false;
    }
    const Status queued = pool_.Submit([this, task = std::move(task)]() mutable {
      waiting_.fetch_sub(1);
      task();
    });
    if (!queued.ok()) waiting_.fetch_sub(1);
    return queued.ok();
  }
  void Shutdown() { pool_.Shutdown(); }

 private:
  const int limit_;
  std::atomic<int> waiting_ = 0;
  ThreadPool pool_;
};

/// Answers one call from a pool thread; a client that cancels or goes away stops its work.
class Call final : public grpc::ServerUnaryReactor {
 public:
  using Work = std::function<grpc::Status(const Context&)>;

  static Call* Start(const grpc::CallbackServerContext& server, CallQueue& queue, Work work) {
    auto* call = new Call;  // OnDone deletes it
    Context ctx;
    ctx.stop = call->stop_.get_token();
    const auto left = server.deadline() - std::chrono::system_clock::now();
    // gRPC says "none" with a time that no clock can count to.
    if (left < std::chrono::hours(24)) ctx.deadline = std::chrono::steady_clock::now() + left;
    const bool queued =
        queue.Run([call, ctx, work = std::move(work)] { call->Finish(Guarded(ctx, work)); });
    if (!queued) {
      call->Finish({grpc::StatusCode::RESOURCE_EXHAUSTED, "too many calls wait; try again later"});
    }
    return call;
  }

  void OnCancel() override { stop_.request_stop(); }
  void OnDone() override { delete this; }

 private:
  Call() = default;
  ~Call() override = default;

  static grpc::Status Guarded(const Context& ctx, const Work& work) {
    try {
      return work(ctx);
    } catch (const std::exception& e) {
      return {grpc::StatusCode::INTERNAL, std::string("unexpected failure: ") + e.what()};
    }
  }

  std::stop_source stop_;
};

}  // namespace davit::csi
