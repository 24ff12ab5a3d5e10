#include "rafs/fuse/read_buffers.h"

#include <sys/mman.h>

#include <cerrno>
#include <string>

namespace davit::rafs {
namespace {

Result<MutableBytes> Map(std::size_t size) {
  void* memory = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) {
    return Error::FromErrno(errno, "allocate a read buffer of " + std::to_string(size) + " bytes");
  }
  return MutableBytes(static_cast<std::byte*>(memory), size);
}

void Unmap(MutableBytes memory) { ::munmap(memory.data(), memory.size()); }

}  // namespace

ReadBuffers::~ReadBuffers() {
  for (const MutableBytes memory : small_) Unmap(memory);
  for (const MutableBytes memory : large_) Unmap(memory);
}

std::vector<MutableBytes>& ReadBuffers::FreeList(std::size_t size) {
  return size == kSmall ? small_ : large_;
}

Result<ReadBuffers::Buffer> ReadBuffers::Take(std::size_t size) {
  if (size > kLarge) {
    return Error(Code::kInvalidArgument, "a reply of " + std::to_string(size) +
                                             " bytes is larger than " + std::to_string(kLarge));
  }
  const std::size_t wanted = size <= kSmall ? kSmall : kLarge;
  {
    const MutexLock lock(mutex_);
    // Whoever holds buffers copies local bytes and returns them soon.
    while (taken_ != 0 && taken_ + wanted > options_.limit_bytes) returned_.Wait(mutex_);
    taken_ += wanted;
    auto& list = FreeList(wanted);
    if (!list.empty()) {
      const MutableBytes memory = list.back();
      list.pop_back();
      free_ -= wanted;
      return Buffer(this, memory);
    }
  }
  auto memory = Map(wanted);
  if (!memory) {
    const MutexLock lock(mutex_);
    taken_ -= wanted;
    returned_.NotifyAll();
    return std::move(memory).error();
  }
  return Buffer(this, *memory);
}

void ReadBuffers::Return(MutableBytes memory) {
  bool keep = false;
  {
    const MutexLock lock(mutex_);
    taken_ -= memory.size();
    keep = free_ + memory.size() <= options_.keep_bytes;
    if (keep) {
      FreeList(memory.size()).push_back(memory);
      free_ += memory.size();
    }
    returned_.NotifyAll();
  }
  if (!keep) Unmap(memory);
}

std::size_t ReadBuffers::allocated_bytes() const {
  const MutexLock lock(mutex_);
  return taken_ + free_;
}

}  // namespace davit::rafs
