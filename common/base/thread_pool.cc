#include "common/base/thread_pool.h"

#include <pthread.h>

#include <deque>
#include <thread>
#include <vector>

#include "common/base/log.h"
#include "common/base/sync.h"

namespace davit {

void SetThreadName(const std::string& name) {
  pthread_setname_np(pthread_self(), name.substr(0, 15).c_str());
}

struct ThreadPool::State {
  struct Item {
    Task task;
    std::vector<log::Field> fields;
  };

  explicit State(std::size_t limit) : queue_limit(limit) {}
  const std::size_t queue_limit;
  Mutex mutex;
  CondVar changed;
  std::deque<Item> queue DAVIT_GUARDED_BY(mutex);
  std::size_t running DAVIT_GUARDED_BY(mutex) = 0;
  bool closed DAVIT_GUARDED_BY(mutex) = false;
  std::vector<std::thread> threads;

  void Run() {
    mutex.lock();
    while (true) {
      while (queue.empty() && !closed) changed.Wait(mutex);
      if (queue.empty()) break;
      Item item = std::move(queue.front());
      queue.pop_front();
      ++running;
      mutex.unlock();
      changed.NotifyAll();
      {
        const log::Scope scope(item.fields);
        item.task();
        item.task = nullptr;
      }
      item.fields.clear();  // what it captured is released before it counts as done
      mutex.lock();
      --running;
      if (queue.empty() && running == 0) changed.NotifyAll();
    }
    mutex.unlock();
  }
};

ThreadPool::ThreadPool(std::string name, std::size_t threads, std::size_t queue_limit)
    : state_(std::make_unique<State>(queue_limit)) {
  for (std::size_t i = 0; i < threads; ++i) {
    state_->threads.emplace_back([this, thread_name = name + "-" + std::to_string(i)] {
      SetThreadName(thread_name);
      state_->Run();
    });
  }
}

ThreadPool::~ThreadPool() { Shutdown(); }

Status ThreadPool::Submit(Task task) {
  MutexLock lock(state_->mutex);
  while (state_->queue.size() >= state_->queue_limit && !state_->closed) {
    state_->changed.Wait(state_->mutex);
  }
  if (state_->closed) return Error(Code::kFailedPrecondition, "the thread pool is shut down");
  state_->queue.push_back({std::move(task), log::ScopeFields()});
  state_->changed.NotifyAll();
  return {};
}

void ThreadPool::WaitIdle() {
  MutexLock lock(state_->mutex);
  while (!state_->queue.empty() || state_->running != 0) state_->changed.Wait(state_->mutex);
}

void ThreadPool::Shutdown() {
  {
    MutexLock lock(state_->mutex);
    state_->closed = true;
    state_->changed.NotifyAll();
  }
  for (std::thread& thread : state_->threads) {
    if (thread.joinable()) thread.join();
  }
}

std::size_t ThreadPool::thread_count() const { return state_->threads.size(); }

}  // namespace davit
