#include "rafs/image/table_memory.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>

#include "common/base/fd.h"

namespace davit::rafs {
namespace {

constexpr std::uint64_t kLeast = 256ULL << 20;

// Of the machine, or of the control group when that is less.
std::uint64_t UsableMemory() {
  const long pages = ::sysconf(_SC_PHYS_PAGES);
  const long page = ::sysconf(_SC_PAGESIZE);
  std::uint64_t bytes = pages > 0 && page > 0
                            ? static_cast<std::uint64_t>(pages) * static_cast<std::uint64_t>(page)
                            : kLeast * 4;
  if (const auto text = ReadFile("/sys/fs/cgroup/memory.max", 64)) {
    std::uint64_t limit = 0;
    const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), limit);
    if (error == std::errc() && limit > 0) bytes = std::min(bytes, limit);
  }
  return bytes;
}

}  // namespace

const std::shared_ptr<TableMemory>& TableMemory::OfProcess() {
  static const auto memory =
      std::make_shared<TableMemory>(Options{.limit_bytes = std::max(kLeast, UsableMemory() / 4)});
  return memory;
}

TableMemory::Share& TableMemory::Share::operator=(Share&& other) noexcept {
  if (this == &other) return *this;
  KeepOnly(0);
  memory_ = std::move(other.memory_);
  bytes_ = std::exchange(other.bytes_, 0);
  return *this;
}

void TableMemory::Share::KeepOnly(std::uint64_t bytes) {
  if (memory_ == nullptr || bytes >= bytes_) return;
  const MutexLock lock(memory_->mutex_);
  memory_->used_ -= bytes_ - bytes;
  bytes_ = bytes;
  memory_->freed_.NotifyAll();
}

Result<TableMemory::Share> TableMemory::Take(const Context& ctx, std::uint64_t bytes,
                                             const std::string& what) {
  const std::uint64_t limit = options_.limit_bytes;
  if (bytes > limit) {
    return Error(Code::kResourceExhausted,
                 fmt::format("{} needs {} MiB of memory, and the tables of all blobs together may "
                             "have {} MiB",
                             what, bytes >> 20, limit >> 20))
        .WithHint("build the image with larger chunks, or mount it where there is more memory");
  }
  const Context patient = ctx.WithTimeout(options_.patience);
  const MutexLock lock(mutex_);
  while (limit - used_ < bytes) {
    if (freed_.Wait(mutex_, patient)) continue;
    DAVIT_TRY(ctx.Check("wait for memory for " + what));
    if (limit - used_ >= bytes) break;
    return Error(Code::kResourceExhausted,
                 fmt::format("{} needs {} MiB of memory; the tables of blobs have {} of the {} MiB "
                             "that they may have together",
                             what, bytes >> 20, used_ >> 20, limit >> 20))
        .WithHint(
            "try again later, unmount images with very many chunks, or give the process more "
            "memory");
  }
  used_ += bytes;
  Share share;
  share.memory_ = shared_from_this();
  share.bytes_ = bytes;
  return share;
}

std::uint64_t TableMemory::used() const {
  const MutexLock lock(mutex_);
  return used_;
}

}  // namespace davit::rafs
