#include "common/base/context.h"

#include <fmt/format.h>

#include "common/base/sync.h"

namespace davit {

std::string_view CauseName(Cause cause) {
  switch (cause) {
    case Cause::kDemand:
      return "demand";
    case Cause::kReadAhead:
      return "read_ahead";
    case Cause::kPrefetch:
      return "prefetch";
    case Cause::kBackfill:
      return "backfill";
  }
  return "demand";
}

Status Context::Check(std::string_view what) const {
  if (stop.stop_requested()) {
    return Error(Code::kCancelled, fmt::format("{}: the caller gave up", what));
  }
  if (deadline && std::chrono::steady_clock::now() >= *deadline) {
    return Error(Code::kDeadlineExceeded, fmt::format("{}: out of time", what));
  }
  return {};
}

Context Context::WithTimeout(Duration timeout) const {
  Context out = *this;
  const TimePoint limit = std::chrono::steady_clock::now() + timeout;
  if (!out.deadline || limit < *out.deadline) out.deadline = limit;
  return out;
}

bool CondVar::Wait(Mutex& mutex, const Context& ctx) {
  if (ctx.stop.stop_requested()) return false;
  bool stopped = false;
  // condition_variable_any watches the stop token only in its predicate forms; the predicate is
  // true after any wake-up, so that the caller re-checks its own condition.
  bool first = true;
  auto woken = [&first] { return !std::exchange(first, false); };
  if (ctx.deadline) {
    if (std::chrono::steady_clock::now() >= *ctx.deadline) return false;
    const bool ok = cv_.wait_until(mutex, ctx.stop, *ctx.deadline, woken);
    stopped = !ok || std::chrono::steady_clock::now() >= *ctx.deadline;
  } else {
    cv_.wait(mutex, ctx.stop, woken);
  }
  return !stopped && !ctx.stop.stop_requested();
}

}  // namespace davit
