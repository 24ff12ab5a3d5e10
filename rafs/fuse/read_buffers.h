#pragma once
// Buffers for the replies of reads and directory listings, shared by all sessions of a process.

#include <cstddef>
#include <memory>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/sync.h"

namespace davit::rafs {

/// Thread-safe. Bounds the memory of replies under way: a reader takes a buffer only when its
/// bytes are local, so that a buffer is held for the time of one copy. Take waits while
/// `limit_bytes` are in use. Up to `keep_bytes` of free buffers are kept for the next reader.
class ReadBuffers {
 public:
  struct Options {
    std::size_t limit_bytes = 16U << 20;
    std::size_t keep_bytes = 6U << 20;
  };
  static constexpr std::size_t kSmall = 128U << 10;
  static constexpr std::size_t kLarge = 1U << 20;

  /// Returns its memory when it goes.
  class Buffer {
   public:
    Buffer(Buffer&& other) noexcept
        : pool_(std::exchange(other.pool_, nullptr)), memory_(other.memory_) {}
    Buffer& operator=(Buffer&&) = delete;
    ~Buffer() {
      if (pool_ != nullptr) pool_->Return(memory_);
    }
    MutableBytes bytes() const { return memory_; }

   private:
    friend class ReadBuffers;
    Buffer(ReadBuffers* pool, MutableBytes memory) : pool_(pool), memory_(memory) {}
    ReadBuffers* pool_;
    MutableBytes memory_;
  };

  ReadBuffers() : ReadBuffers(Options()) {}
  explicit ReadBuffers(const Options& options) : options_(options) {}
  ~ReadBuffers();
  ReadBuffers(const ReadBuffers&) = delete;
  ReadBuffers& operator=(const ReadBuffers&) = delete;

  /// At least `size` bytes, at most kLarge; kResourceExhausted when there is no memory.
  Result<Buffer> Take(std::size_t size);
  /// Free and taken memory together.
  std::size_t allocated_bytes() const;

 private:
  friend class Buffer;
  void Return(MutableBytes memory);
  std::vector<MutableBytes>& FreeList(std::size_t size) DAVIT_REQUIRES(mutex_);

  const Options options_;
  mutable Mutex mutex_;
  CondVar returned_;
  std::size_t taken_ DAVIT_GUARDED_BY(mutex_) = 0;
  std::size_t free_ DAVIT_GUARDED_BY(mutex_) = 0;
  std::vector<MutableBytes> small_ DAVIT_GUARDED_BY(mutex_);  // last in, first out: still in cache
  std::vector<MutableBytes> large_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::rafs
