#pragma once
// The threads that serve one session; internal to rafs/fuse.

#include <atomic>
#include <cstddef>
#include <memory>
#include <string>

#include "common/base/sync.h"
#include "rafs/fuse/inflight.h"

namespace davit::rafs {

/// Where requests come from. Receive and Process are called by many threads at once.
class RequestSource {
 public:
  /// A thread's receive buffer, allocated by the source at the first Receive.
  struct Message {
    void* memory = nullptr;
    std::size_t size = 0;
  };
  virtual ~RequestSource() = default;
  /// Waits for a request; false when the connection is over.
  virtual bool Receive(Message& message) = 0;
  virtual void Process(const Message& message) = 0;
  virtual void Free(Message& message) = 0;
};

/// Grows when the last thread that waits for requests has got one, so that a request that takes
/// its time (disk, network) never keeps others from being read; shrinks again: threads in excess
/// of `rest` are parked, and end after a while. Starts with one thread.
class Workers {
 public:
  struct Options {
    std::string name;                    // at most 12 characters are kept
    std::vector<log::Field> log_fields;  // in every log line of the threads
    std::size_t rest = 4;                // threads that wait for requests when there are none
    std::size_t max = 64;                // in all
    Duration park_time = std::chrono::seconds(10);
  };
  /// `keep_alive` owns `source` and `slots`; every thread holds it until it ends.
  Workers(std::shared_ptr<void> keep_alive, RequestSource& source, InflightTable& slots,
          const Options& options);
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  /// kResourceExhausted when no thread can be made.
  Status Start();
  /// The connection is over (threads may still be answering).
  bool over() const;
  /// Waits until the last thread has ended; false on timeout.
  bool JoinFor(Duration timeout);
  std::size_t thread_count() const;

  /// The slot of the calling thread; null in threads that are not workers.
  static InflightSlot* CurrentSlot();

 private:
  struct State;
  std::shared_ptr<State> state_;
  std::weak_ptr<void> keep_alive_;
};

}  // namespace davit::rafs
