#pragma once
// Mutex and condition variable with clang's thread-safety annotations (checked by clang-19 in CI).
// The lock order of the whole project is in docs/locks.md.

#include <condition_variable>
#include <mutex>

#include "common/base/context.h"

#if defined(__clang__)
#define DAVIT_TSA_(x) __attribute__((x))
#else
#define DAVIT_TSA_(x)
#endif
#define DAVIT_CAPABILITY(x) DAVIT_TSA_(capability(x))
#define DAVIT_SCOPED_CAPABILITY DAVIT_TSA_(scoped_lockable)
#define DAVIT_GUARDED_BY(x) DAVIT_TSA_(guarded_by(x))
#define DAVIT_PT_GUARDED_BY(x) DAVIT_TSA_(pt_guarded_by(x))
#define DAVIT_REQUIRES(...) DAVIT_TSA_(requires_capability(__VA_ARGS__))
#define DAVIT_EXCLUDES(...) DAVIT_TSA_(locks_excluded(__VA_ARGS__))
#define DAVIT_ACQUIRE(...) DAVIT_TSA_(acquire_capability(__VA_ARGS__))
#define DAVIT_RELEASE(...) DAVIT_TSA_(release_capability(__VA_ARGS__))
#define DAVIT_NO_THREAD_SAFETY_ANALYSIS DAVIT_TSA_(no_thread_safety_analysis)

namespace davit {

class DAVIT_CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;
  void lock() DAVIT_ACQUIRE() { mutex_.lock(); }
  void unlock() DAVIT_RELEASE() { mutex_.unlock(); }

 private:
  std::mutex mutex_;
};

class DAVIT_SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) DAVIT_ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() DAVIT_RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

/// Waits are loops over a condition: `while (!ready_) { if (!cv_.Wait(mu_, ctx)) return ...; }`.
class CondVar {
 public:
  void Wait(Mutex& mutex) DAVIT_REQUIRES(mutex) { cv_.wait(mutex); }
  /// False when the context was cancelled or its deadline passed before a notification.
  bool Wait(Mutex& mutex, const Context& ctx) DAVIT_REQUIRES(mutex);
  /// False on timeout.
  bool WaitFor(Mutex& mutex, Duration timeout) DAVIT_REQUIRES(mutex) {
    return cv_.wait_for(mutex, timeout) == std::cv_status::no_timeout;
  }
  void NotifyOne() { cv_.notify_one(); }
  void NotifyAll() { cv_.notify_all(); }

 private:
  std::condition_variable_any cv_;
};

}  // namespace davit
