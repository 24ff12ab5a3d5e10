#pragma once
// Memory between network and disk: bounded, re-used, given back when idle.

#include <cstdint>
#include <map>
#include <utility>
#include <vector>

#include "common/base/bytes.h"
#include "common/base/context.h"
#include "common/base/sync.h"

namespace davit::storage {

/// Thread-safe. Must outlive its buffers.
class BufferPool {
 public:
  /// Owns a piece of memory; gives it back on destruction. Move-only.
  class Buffer {
   public:
    Buffer() = default;
    Buffer(Buffer&& other) noexcept { *this = std::move(other); }
    Buffer& operator=(Buffer&& other) noexcept {
      std::swap(pool_, other.pool_);
      std::swap(bytes_, other.bytes_);
      return *this;
    }
    ~Buffer() {
      if (pool_ != nullptr) pool_->Return(bytes_);
    }
    MutableBytes bytes() const { return bytes_; }
    explicit operator bool() const { return pool_ != nullptr; }

   private:
    friend class BufferPool;
    Buffer(BufferPool* pool, MutableBytes bytes) : pool_(pool), bytes_(bytes) {}
    BufferPool* pool_ = nullptr;
    MutableBytes bytes_;
  };

  explicit BufferPool(std::uint64_t limit_bytes) : limit_(limit_bytes) {}
  ~BufferPool();
  BufferPool(const BufferPool&) = delete;
  BufferPool& operator=(const BufferPool&) = delete;

  /// At least `size` bytes; blocks while the limit is reached. One buffer is always given, however
  /// large; `background` callers leave half of the memory to others. kCancelled by `ctx`.
  Result<Buffer> Acquire(const Context& ctx, std::size_t size, bool background);
  /// Unmaps what nobody has needed since the last call.
  void Trim();
  std::uint64_t in_use() const;

 private:
  struct Idle {
    std::vector<std::byte*> list;  // the last in is the first out
    std::size_t spare = 0;         // the shortest that the list was since the last Trim
  };
  void Return(MutableBytes bytes);
  const std::uint64_t limit_;
  mutable Mutex mutex_;
  CondVar returned_;
  std::uint64_t used_ DAVIT_GUARDED_BY(mutex_) = 0;
  std::uint64_t idle_bytes_ DAVIT_GUARDED_BY(mutex_) = 0;
  std::map<std::size_t, Idle> idle_ DAVIT_GUARDED_BY(mutex_);
};

}  // namespace davit::storage
