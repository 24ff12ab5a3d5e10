#include "storage/cache/fetch_pool.h"

#include <algorithm>

#include "common/base/thread_pool.h"

namespace davit::storage {
namespace {
constexpr std::size_t kMaxThreads = 128;
constexpr int kMaxBackgroundPerHost = 4;
constexpr std::chrono::seconds kIdleTime{5};

Cause Urgency(const FetchPool::Job& job) {
  return job.hurry.stop_requested() ? Cause::kDemand : job.cause;
}
TimePoint Now() { return std::chrono::steady_clock::now(); }
bool IsBackground(Cause cause) { return cause == Cause::kPrefetch || cause == Cause::kBackfill; }
}  // namespace

TimePoint FetchPool::QuietAt(const Job& job) const {
  if (!job.fill_asked_at || job.at_once.stop_requested()) return {};
  const TimePoint latest = *job.fill_asked_at + options_.quiet_window;
  if (demand_ > 0) return latest;
  return std::min(latest, std::max(last_demand_, *job.fill_asked_at) + options_.quiet_period);
}

int FetchPool::RunningOf(const Job& job) const {
  const auto host = running_.find(job.host);
  if (host == running_.end()) return 0;
  const auto owner = host->second.by_owner.find(job.owner);
  return owner == host->second.by_owner.end() ? 0 : owner->second;
}

void FetchPool::Count(const Job& job, bool background, int change) {
  Running& running = running_[job.host];
  running.all += change;
  if (background) running.background += change;
  const auto owner = running.by_owner.try_emplace(job.owner, 0).first;
  owner->second += change;
  if (owner->second == 0) running.by_owner.erase(owner);
}

std::list<FetchPool::Job>::iterator FetchPool::Next(TimePoint now) {
  auto best = queue_.end();
  std::pair<Cause, int> best_rank{};
  for (auto it = queue_.begin(); it != queue_.end(); ++it) {
    const Cause cause = Urgency(*it);
    const std::pair<Cause, int> rank{cause, RunningOf(*it)};
    if (best != queue_.end() && best_rank <= rank) continue;
    const Running& running = running_[it->host];
    if (!closed_ && running.all >= options_.threads_per_host) continue;
    if (!closed_ && IsBackground(cause) && running.background >= kMaxBackgroundPerHost) continue;
    if (!closed_ && cause == Cause::kBackfill && QuietAt(*it) > now) continue;
    best = it;
    best_rank = rank;
    if (rank == std::pair{Cause::kDemand, 0}) break;
  }
  return best;
}

std::optional<TimePoint> FetchPool::NextDue() const {
  std::optional<TimePoint> due;
  for (const Job& job : queue_) {
    if (Urgency(job) != Cause::kBackfill) continue;
    const TimePoint at = QuietAt(job);
    // One that is due waits for a free slot; whoever frees it looks again.
    if (at > Now() && (!due || at < *due)) due = at;
  }
  return due;
}

void FetchPool::StartThreadIfNeeded() {
  ended_.remove_if([](std::thread& thread) {
    thread.join();
    return true;
  });
  if (idle_ > 0 || threads_.size() >= kMaxThreads || closed_) return;
  if (Next(Now()) == queue_.end() && !NextDue()) return;
  std::thread thread([this] { Run(); });
  const std::thread::id id = thread.get_id();
  threads_.emplace(id, std::move(thread));
}

void FetchPool::Submit(Job job) {
  {
    MutexLock lock(mutex_);
    if (!closed_) {
      if (job.cause == Cause::kDemand) ++demand_;
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
  last_demand_ = Now();
  StartThreadIfNeeded();
  changed_.NotifyOne();
}

void FetchPool::Wake() {
  MutexLock lock(mutex_);
  StartThreadIfNeeded();
  changed_.NotifyAll();
}

void FetchPool::Run() {
  SetThreadName("cache-fetch");
  mutex_.lock();
  while (true) {
    const auto next = Next(Now());
    if (next == queue_.end()) {
      if (closed_) break;
      const std::optional<TimePoint> due = NextDue();
      ++idle_;
      const bool woken = changed_.WaitFor(mutex_, due ? *due - Now() : Duration(kIdleTime));
      --idle_;
      if (!woken && !due && Next(Now()) == queue_.end()) break;
      continue;
    }
    Job job = std::move(*next);
    queue_.erase(next);
    const bool background = IsBackground(Urgency(job));
    Count(job, background, 1);
    StartThreadIfNeeded();
    mutex_.unlock();
    job.run();
    job.run = nullptr;  // what it captured is released before it counts as done
    mutex_.lock();
    Count(job, background, -1);
    if (job.cause == Cause::kDemand) --demand_;
    if (Urgency(job) == Cause::kDemand) last_demand_ = Now();
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
