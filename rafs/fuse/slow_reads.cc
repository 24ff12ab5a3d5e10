#include "rafs/fuse/slow_reads.h"

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <string>
#include <utility>

#include "common/base/fd.h"
#include "common/base/thread_pool.h"

namespace davit::rafs {
namespace {
constexpr std::chrono::milliseconds kWatchEvery{200};
}  // namespace

SlowReads::SlowReads(std::size_t max_waiting, Answer answer)
    : max_waiting_(max_waiting), answer_(std::move(answer)) {}

SlowReads::~SlowReads() { CancelAll(); }

std::unique_ptr<SlowRead> SlowReads::Begin(std::unique_ptr<SlowRead> read) {
  const MutexLock lock(mutex_);
  // The signal came before the read was in a list, where the watcher could not see it.
  if (read->signalled) StartWatching();
  if (cancelled_) {
    read->stop.request_stop();
  } else if (waiting_.size() >= max_waiting_) {
    queued_.push_back(std::move(read));
    return nullptr;
  }
  waiting_.push_back(read.get());
  return read;
}

std::unique_ptr<SlowRead> SlowReads::Finish(SlowRead* answered) {
  const MutexLock lock(mutex_);
  std::erase(waiting_, answered);
  if (queued_.empty() || waiting_.size() >= max_waiting_) return nullptr;
  auto next = std::move(queued_.front());
  queued_.pop_front();
  waiting_.push_back(next.get());
  return next;
}

void SlowReads::Signal(SlowRead* read) {
  read->signalled = true;
  const MutexLock lock(mutex_);
  StartWatching();
}

void SlowReads::StartWatching() {
  if (cancelled_) return;
  ++signalled_;
  wake_.NotifyAll();
  if (watching_) return;
  if (watcher_.joinable()) watcher_.join();  // it has decided to end: at once
  watching_ = true;
  watcher_ = std::thread([this] { Watch(); });
}

// Looks at every reader that got a signal, until none of them waits any more.
void SlowReads::Watch() {
  SetThreadName("fuse signals");
  for (;;) {
    Reads unqueued;
    StopKilled(unqueued);
    if (!unqueued.empty()) answer_(std::move(unqueued));
    const MutexLock lock(mutex_);
    const auto is_watched = [](const auto& read) { return read->signalled && !read->killed; };
    const bool more = signalled_ != 0 || std::ranges::any_of(waiting_, is_watched) ||
                      std::ranges::any_of(queued_, is_watched);
    if (!more || cancelled_) {
      watching_ = false;
      return;
    }
    if (signalled_ == 0) wake_.WaitFor(mutex_, kWatchEvery);
  }
}

void SlowReads::StopKilled(Reads& unqueued) {
  std::vector<std::stop_source> stops;
  {
    const MutexLock lock(mutex_);
    signalled_ = 0;
    const auto is_killed = [](SlowRead& read) {
      if (!read.signalled || read.killed || !IsBeingKilled(read.reader)) return false;
      read.killed = true;
      return true;
    };
    for (SlowRead* read : waiting_) {
      if (is_killed(*read)) stops.push_back(read->stop);
    }
    for (auto& read : queued_) {
      if (is_killed(*read)) unqueued.push_back(std::move(read));
    }
    std::erase(queued_, nullptr);
  }
  // Runs callbacks of whoever waits: not under the lock.
  for (std::stop_source& stop : stops) stop.request_stop();
}

SlowReads::Reads SlowReads::CancelAll() {
  std::vector<std::stop_source> stops;
  Reads out;
  std::thread watcher;
  {
    const MutexLock lock(mutex_);
    cancelled_ = true;
    stops.reserve(waiting_.size());
    for (const SlowRead* read : waiting_) stops.push_back(read->stop);
    for (auto& read : queued_) out.push_back(std::move(read));
    queued_.clear();
    watcher = std::move(watcher_);
    wake_.NotifyAll();
  }
  if (watcher.joinable()) watcher.join();
  for (std::stop_source& stop : stops) stop.request_stop();
  return out;
}

void SlowReads::ListQueued(TimePoint now, std::vector<InflightRequest>& out) const {
  const MutexLock lock(mutex_);
  for (const auto& read : queued_) {
    out.push_back(
        {.operation = "read (queued)",
         .inode = read->node,
         .offset = read->offset,
         .size = read->size,
         .age = std::chrono::duration_cast<std::chrono::milliseconds>(now - read->since)});
  }
}

bool IsBeingKilled(int thread_id) {
  if (thread_id <= 0) return false;
  const auto status = ReadFile("/proc/" + std::to_string(thread_id) + "/status", 1U << 20);
  if (!status) return status.error().sys_errno() == ENOENT || status.error().sys_errno() == ESRCH;
  // The kernel turns every signal that ends a process into a pending SIGKILL of each thread.
  constexpr std::string_view kField = "\nSigPnd:\t";
  const std::size_t at = status->find(kField);
  if (at == std::string::npos) return false;
  const unsigned long long pending =
      std::strtoull(status->c_str() + at + kField.size(), nullptr, 16);
  return (pending & (1ULL << (SIGKILL - 1))) != 0;
}

}  // namespace davit::rafs
