#include "storage/cache/fetch_pool.h"

#include "common/base/thread_pool.h"

namespace davit::storage {
namespace {
constexpr std::size_t kMaxThreads = 128;
constexpr int kMaxBackgroundPerHost = 4;
constexpr std::chrono::seconds kIdleTime{5};

Cause Urgency(const FetchPool::Job& job) {
  return job.hurry.stop_requested() ? Cause::kDemand : job.cause;
}
bool IsBackground(Cause cause) { return cause == Cause::kPrefetch || cause == Cause::kBackfill; }
}  // namespace

std::list<FetchPool::Job>::iterator FetchPool::Next() {
  auto best = queue_.end();
  for (auto it = queue_.begin(); it != queue_.end(); ++it) {
    const Cause cause = Urgency(*it);
    if (best != queue_.end() && Urgency(*best) <= cause) continue;
    const Running& running = running_[it->host];
    if (!closed_ && running.all >= per_host_) continue;
    if (!closed_ && IsBackground(cause) && running.background >= kMaxBackgroundPerHost) continue;
    best = it;
    if (cause == Cause::kDemand) break;
  }
  return best;
}

void FetchPool::StartThreadIfNeeded() {
  ended_.remove_if([](std::thread& thread) {
    thread.join();
    return true;
  });
  if (idle_ > 0 || threads_.size() >= kMaxThreads || closed_ || Next() == queue_.end()) return;
  std::thread thread([this] { Run(); });
  const std::thread::id id = thread.get_id();
  threads_.emplace(id, std::move(thread));
}

void FetchPool::Submit(Job job) {
  {
    MutexLock lock(mutex_);
    if (!closed_) {
      queue_.push_back(std::move(job));
      StartThreadIfNeeded();
      changed_.NotifyOne();
      return;
    }
  }
  job.run();
}

void FetchPool::Poke() {
  MutexLock lock(mutex_);
  StartThreadIfNeeded();
  changed_.NotifyOne();
}

void FetchPool::Run() {
  SetThreadName("cache-fetch");
  mutex_.lock();
  while (true) {
    const auto next = Next();
    if (next == queue_.end()) {
      if (closed_) break;
      ++idle_;
      const bool woken = changed_.WaitFor(mutex_, kIdleTime);
      --idle_;
      if (!woken && Next() == queue_.end()) break;
      continue;
    }
    Job job = std::move(*next);
    queue_.erase(next);
    const bool background = IsBackground(Urgency(job));
    Running& running = running_[job.host];
    ++running.all;
    if (background) ++running.background;
    StartThreadIfNeeded();
    mutex_.unlock();
    job.run();
    job.run = nullptr;  // what it captured is released before it counts as done
    mutex_.lock();
    --running.all;
    if (background) --running.background;
  }
  if (const auto self = threads_.find(std::this_thread::get_id()); self != threads_.end()) {
    ended_.push_back(std::move(self->second));
    threads_.erase(self);
  }
  changed_.NotifyAll();
  mutex_.unlock();
}

void FetchPool::Shutdown() {
  std::list<std::thread> ended;
  {
    MutexLock lock(mutex_);
    closed_ = true;
    changed_.NotifyAll();
    while (!threads_.empty()) changed_.Wait(mutex_);
    ended.swap(ended_);
  }
  for (std::thread& thread : ended) thread.join();
}

}  // namespace davit::storage
