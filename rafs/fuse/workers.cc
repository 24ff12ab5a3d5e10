#include "rafs/fuse/workers.h"

#include <system_error>
#include <thread>

#include "common/base/log.h"
#include "common/base/thread_pool.h"

namespace davit::rafs {
namespace {
thread_local InflightSlot* current_slot = nullptr;
}  // namespace

struct Workers::State : std::enable_shared_from_this<Workers::State> {
  State(RequestSource& s, InflightTable& t, const Options& o) : source(s), slots(t), options(o) {}

  Status Spawn(std::shared_ptr<void> keep_alive) DAVIT_REQUIRES(mutex);
  void Run(std::shared_ptr<void> keep_alive);
  void Serve(const std::shared_ptr<void>& keep_alive);
  void MakeSureSomebodyReceives(const std::shared_ptr<void>& keep_alive);
  bool WaitForPlace();
  bool TakeFreePlace();
  bool Park();

  // Both are owned by what the threads' keep_alive owns.
  RequestSource& source;
  InflightTable& slots;
  const Options options;
  std::atomic<std::size_t> receiving{0};  // threads in Receive
  std::atomic<bool> over{false};
  std::atomic<bool> spawn_failed{false};

  mutable Mutex mutex;
  CondVar unpark, ended;
  std::size_t threads DAVIT_GUARDED_BY(mutex) = 0;
  std::size_t parked DAVIT_GUARDED_BY(mutex) = 0;
  std::size_t wanted DAVIT_GUARDED_BY(mutex) = 0;  // of the parked, still to wake up
};

Status Workers::State::Spawn(std::shared_ptr<void> keep_alive) {
  ++threads;
  try {
    std::thread([self = shared_from_this(), keep = std::move(keep_alive)]() mutable {
      self->Run(std::move(keep));
    }).detach();
  } catch (const std::system_error& e) {
    --threads;
    return Error(Code::kResourceExhausted, std::string("start a FUSE thread: ") + e.what())
        .WithHint("raise the limit of processes (ulimit -u, the cgroup's pids.max)");
  }
  return {};
}

void Workers::State::Run(std::shared_ptr<void> keep_alive) {
  SetThreadName("fuse " + options.name);
  {
    const log::Scope scope(options.log_fields);
    Serve(keep_alive);
  }
  // Before the count goes down: who waits for the last thread expects everything to be closed.
  keep_alive.reset();
  const MutexLock lock(mutex);
  --threads;
  ended.NotifyAll();
}

void Workers::State::Serve(const std::shared_ptr<void>& keep_alive) {
  InflightSlot* const slot = slots.Take();
  current_slot = slot;
  RequestSource::Message message;
  while (slot != nullptr && WaitForPlace()) {
    const bool received = source.Receive(message);
    const bool was_last = receiving.fetch_sub(1, std::memory_order_relaxed) == 1;
    if (!received) {
      const MutexLock lock(mutex);
      over.store(true, std::memory_order_release);
      unpark.NotifyAll();
      break;
    }
    if (was_last) MakeSureSomebodyReceives(keep_alive);
    source.Process(message);
  }
  source.Free(message);
  current_slot = nullptr;
  if (slot != nullptr) InflightTable::Release(slot);
}

void Workers::State::MakeSureSomebodyReceives(const std::shared_ptr<void>& keep_alive) {
  const MutexLock lock(mutex);
  if (over) return;
  if (wanted < parked) {
    ++wanted;
    unpark.NotifyOne();
  } else if (threads < options.max) {
    const Status spawned = Spawn(keep_alive);
    if (!spawned && !spawn_failed.exchange(true)) {
      // Goes on with the threads there are; slower, never wrong.
      log::Warn("cannot start another FUSE thread", {{"error", spawned.error()}});
    }
  }
}

// Counts the caller among those that receive, unless there are enough.
bool Workers::State::TakeFreePlace() {
  std::size_t now = receiving.load(std::memory_order_relaxed);
  while (now < options.rest) {
    if (receiving.compare_exchange_weak(now, now + 1, std::memory_order_relaxed)) return true;
  }
  return false;
}

// False when the thread is to end. Who was woken may find that others were faster.
bool Workers::State::WaitForPlace() {
  while (!over.load(std::memory_order_acquire)) {
    if (TakeFreePlace()) return true;
    if (!Park()) return false;
  }
  return false;
}

// False after a while in which nobody needed the thread.
bool Workers::State::Park() {
  const TimePoint until = std::chrono::steady_clock::now() + options.park_time;
  const MutexLock lock(mutex);
  ++parked;
  while (wanted == 0 && !over) {
    const Duration left = until - std::chrono::steady_clock::now();
    if (left <= Duration::zero()) break;
    unpark.WaitFor(mutex, left);
  }
  --parked;
  if (wanted == 0) return false;
  --wanted;
  return true;
}

Workers::Workers(std::shared_ptr<void> keep_alive, RequestSource& source, InflightTable& slots,
                 const Options& options)
    : state_(std::make_shared<State>(source, slots, options)), keep_alive_(keep_alive) {}

Status Workers::Start() {
  const MutexLock lock(state_->mutex);
  return state_->Spawn(keep_alive_.lock());
}

bool Workers::over() const { return state_->over.load(std::memory_order_acquire); }

bool Workers::JoinFor(Duration timeout) {
  const TimePoint until = std::chrono::steady_clock::now() + timeout;
  const MutexLock lock(state_->mutex);
  while (state_->threads != 0) {
    const Duration left = until - std::chrono::steady_clock::now();
    if (left <= Duration::zero()) return false;
    state_->ended.WaitFor(state_->mutex, left);
  }
  return true;
}

std::size_t Workers::thread_count() const {
  const MutexLock lock(state_->mutex);
  return state_->threads;
}

InflightSlot* Workers::CurrentSlot() { return current_slot; }

}  // namespace davit::rafs
