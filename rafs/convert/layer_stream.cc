#include "rafs/convert/layer_stream.h"

#include <algorithm>
#include <deque>
#include <optional>
#include <string>
#include <thread>

#include "common/base/sync.h"
#include "common/base/thread_pool.h"

namespace davit::rafs {
namespace {

class LayerStream final : public codec::ByteStream {
 public:
  LayerStream(const Context& ctx, registry::Repository& repository, oci::Descriptor layer,
              std::size_t ahead_bytes)
      : ahead_bytes_(ahead_bytes),
        outer_stop_(ctx.stop, [this] { stop_.request_stop(); }),
        thread_([this, ctx, &repository, layer = std::move(layer)] {
          SetThreadName("layer-download");
          Context own = ctx;
          own.stop = stop_.get_token();
          Finish(repository.ReadBlob(own, layer, [this](Bytes data) { return Put(data); }));
        }) {}

  ~LayerStream() override {
    stop_.request_stop();
    {
      MutexLock lock(mutex_);
      abandoned_ = true;
      changed_.NotifyAll();
    }
    thread_.join();
  }

  Result<std::size_t> Read(MutableBytes out) override {
    MutexLock lock(mutex_);
    while (queue_.empty() && !end_) changed_.Wait(mutex_);
    if (queue_.empty()) {
      if (!end_->ok()) return end_->error();
      return 0;
    }
    std::string& front = queue_.front();
    const std::size_t n = std::min(out.size(), front.size() - front_used_);
    std::copy_n(AsBytes(front).begin() + static_cast<std::ptrdiff_t>(front_used_), n, out.begin());
    front_used_ += n;
    queued_bytes_ -= n;
    if (front_used_ == front.size()) {
      queue_.pop_front();
      front_used_ = 0;
    }
    changed_.NotifyAll();
    return n;
  }

 private:
  Status Put(Bytes data) {
    MutexLock lock(mutex_);
    while (queued_bytes_ >= ahead_bytes_ && !abandoned_) changed_.Wait(mutex_);
    if (abandoned_) return Error(Code::kCancelled, "the layer is no longer wanted");
    queue_.emplace_back(AsText(data));
    queued_bytes_ += data.size();
    changed_.NotifyAll();
    return {};
  }

  void Finish(Status status) {
    MutexLock lock(mutex_);
    end_ = std::move(status);
    changed_.NotifyAll();
  }

  const std::size_t ahead_bytes_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<std::string> queue_ DAVIT_GUARDED_BY(mutex_);
  std::size_t front_used_ DAVIT_GUARDED_BY(mutex_) = 0;
  std::size_t queued_bytes_ DAVIT_GUARDED_BY(mutex_) = 0;
  std::optional<Status> end_ DAVIT_GUARDED_BY(mutex_);
  bool abandoned_ DAVIT_GUARDED_BY(mutex_) = false;
  std::stop_source stop_;
  std::stop_callback<std::function<void()>> outer_stop_;
  std::thread thread_;
};

}  // namespace

std::unique_ptr<codec::ByteStream> StreamLayer(const Context& ctx, registry::Repository& repository,
                                               const oci::Descriptor& layer,
                                               std::size_t ahead_bytes) {
  return std::make_unique<LayerStream>(ctx, repository, layer, ahead_bytes);
}

}  // namespace davit::rafs
