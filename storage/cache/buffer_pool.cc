#include "storage/cache/buffer_pool.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <span>

namespace davit::storage {
namespace {
// Mapped rather than allocated: what is given back really leaves the process.
constexpr std::size_t kSmallest = 64U << 10;

// Four sizes per power of two: at most a quarter is wasted, and pieces are found again.
std::size_t RoundSize(std::size_t size) {
  if (size <= kSmallest) return kSmallest;
  const std::size_t step = std::bit_floor(size - 1) / 4;  // a power of two
  return (size + step - 1) & ~(step - 1);
}
}  // namespace

BufferPool::~BufferPool() {
  Trim();  // counts all as spare
  Trim();
}

Result<BufferPool::Buffer> BufferPool::Acquire(const Context& ctx, std::size_t size,
                                               bool background) {
  const std::size_t rounded = RoundSize(size);
  MutexLock lock(mutex_);
  const std::uint64_t limit = background ? limit_ / 2 : limit_;
  while (used_ != 0 && used_ + rounded > limit) {
    if (!returned_.Wait(mutex_, ctx)) DAVIT_TRY(ctx.Check("wait for a buffer"));
  }
  Idle& same_size = idle_[rounded];
  std::byte* memory = nullptr;
  if (!same_size.list.empty()) {
    memory = same_size.list.back();
    same_size.list.pop_back();
    same_size.spare = std::min(same_size.spare, same_size.list.size());
    idle_bytes_ -= rounded;
  } else {
    void* mapped =
        ::mmap(nullptr, rounded, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) {
      return Error(Code::kResourceExhausted,
                   fmt::format("no memory for a buffer of {} bytes", rounded));
    }
    memory = static_cast<std::byte*>(mapped);
  }
  used_ += rounded;
  return Buffer(this, MutableBytes(memory, rounded));
}

void BufferPool::Return(MutableBytes bytes) {
  MutexLock lock(mutex_);
  used_ -= bytes.size();
  if (idle_bytes_ + bytes.size() > limit_ / 2) {
    ::munmap(bytes.data(), bytes.size());
  } else {
    idle_[bytes.size()].list.push_back(bytes.data());
    idle_bytes_ += bytes.size();
  }
  returned_.NotifyAll();
}

void BufferPool::Trim() {
  MutexLock lock(mutex_);
  for (auto& [size, idle] : idle_) {
    for (std::byte* memory : std::span(idle.list).first(idle.spare)) ::munmap(memory, size);
    idle.list.erase(idle.list.begin(), idle.list.begin() + static_cast<std::ptrdiff_t>(idle.spare));
    idle_bytes_ -= idle.spare * size;
    idle.spare = idle.list.size();
  }
}

std::uint64_t BufferPool::in_use() const {
  MutexLock lock(mutex_);
  return used_;
}

}  // namespace davit::storage
