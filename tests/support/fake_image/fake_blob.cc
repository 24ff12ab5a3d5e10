#include <sys/mman.h>

#include <cstdlib>

#include "tests/support/fake_image/fake_image.h"

namespace davit::testing {
namespace {

UniqueFd MemoryFile(const std::string& content) {
  UniqueFd fd(::memfd_create("davit-fake-blob", MFD_CLOEXEC));
  if (!fd || !PwriteFull(fd.get(), AsBytes(content), 0)) std::abort();
  return fd;
}

}  // namespace

FakeBlob::FakeBlob(const std::string& content) : FakeBlob(MemoryFile(content), content.size()) {}

FakeBlob::FakeBlob(UniqueFd data, std::uint64_t size)
    : id_{std::string(64, 'b')}, data_(std::move(data)), size_(size) {}

Status FakeBlob::Ensure(const Context& ctx, ByteRange) {
  ensures_.fetch_add(1, std::memory_order_relaxed);
  if (local_.load(std::memory_order_acquire)) return {};
  const MutexLock lock(mutex_);
  ++waiting_;
  changed_.NotifyAll();
  Status result;
  while (!local_ && !error_) {
    if (changed_.Wait(mutex_, ctx)) continue;
    result = ctx.Check("wait for a fake blob");
    break;
  }
  if (error_ && !local_) result = *error_;
  --waiting_;
  changed_.NotifyAll();
  return result;
}

Result<std::size_t> FakeBlob::Read(const Context& ctx, std::uint64_t offset, MutableBytes out) {
  DAVIT_TRY(Ensure(ctx, {offset, out.size()}));
  return PreadFull(data_.get(), out, offset);
}

bool FakeBlob::IsReady(ByteRange) const { return local_.load(std::memory_order_acquire); }

void FakeBlob::Withhold() {
  const MutexLock lock(mutex_);
  local_ = false;
}

void FakeBlob::Release() {
  const MutexLock lock(mutex_);
  local_ = true;
  changed_.NotifyAll();
}

void FakeBlob::FailWith(std::optional<Error> error) {
  const MutexLock lock(mutex_);
  error_ = std::move(error);
  changed_.NotifyAll();
}

bool FakeBlob::AwaitWaiting(int count) {
  const TimePoint until = std::chrono::steady_clock::now() + std::chrono::seconds(10);
  const MutexLock lock(mutex_);
  while (waiting_ < count) {
    if (std::chrono::steady_clock::now() >= until) return false;
    changed_.WaitFor(mutex_, std::chrono::milliseconds(100));
  }
  return true;
}

int FakeBlob::waiting() const {
  const MutexLock lock(mutex_);
  return waiting_;
}

}  // namespace davit::testing
