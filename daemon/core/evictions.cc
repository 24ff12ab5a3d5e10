#include "daemon/core/evictions.h"

#include <fmt/format.h>

#include <utility>

#include "common/base/context.h"
#include "common/base/log.h"

namespace davit::daemon {

Evictions::Evictions(Evict evict, EventLog& events) : evict_(std::move(evict)), events_(events) {}

Result<std::optional<std::uint64_t>> Evictions::Run(std::uint64_t bytes, Duration wait) {
  auto operation = std::make_shared<Operation>();
  {
    const MutexLock lock(mutex_);
    if (std::exchange(running_, true)) {
      return Error(Code::kAborted, "another eviction runs")
          .WithHint("try again when it is over; GET /api/v1/events tells");
    }
  }
  const Status submitted = pool_.Submit([this, operation, bytes] { Work(operation, bytes); });
  const Context ctx = Context{}.WithTimeout(wait);
  const MutexLock lock(mutex_);
  if (!submitted) {
    running_ = false;
    return submitted.error();
  }
  while (!operation->result) {
    if (!changed_.Wait(mutex_, ctx)) break;
  }
  if (!operation->result) {
    operation->late = true;
    return std::optional<std::uint64_t>();
  }
  if (!*operation->result) return operation->result->error();
  return std::optional<std::uint64_t>(**operation->result);
}

void Evictions::Work(const std::shared_ptr<Operation>& operation, std::uint64_t bytes) {
  log::Debug("freeing space on request", {{"bytes", bytes}});
  Result<std::uint64_t> result = evict_(bytes);
  const std::string text = result ? fmt::format("{} of {} bytes freed", *result, bytes)
                                  : fmt::format("nothing freed: {}", result.error().ToString());
  const bool freed = result.ok();
  bool late = false;
  {
    const MutexLock lock(mutex_);
    running_ = false;
    late = operation->late;
    operation->result = std::move(result);
    changed_.NotifyAll();
  }
  if (!late) return;
  if (!freed) log::Warn("space could not be freed", {{"why", text}});
  events_.Add(freed ? "evicted" : "error", "", text);
}

}  // namespace davit::daemon
