#include "daemon/core/event_log.h"

#include <chrono>

namespace davit::daemon {

void EventLog::Add(std::string kind, std::string mount, std::string message) {
  const auto now =
      std::chrono::duration_cast<std::chrono::milliseconds>(clock_.WallNow().time_since_epoch());
  const MutexLock lock(mutex_);
  events_.push_back({.sequence = ++last_,
                     .unix_ms = now.count(),
                     .kind = std::move(kind),
                     .mount = std::move(mount),
                     .message = std::move(message)});
  while (events_.size() > capacity_) events_.pop_front();
}

std::vector<api::Event> EventLog::Since(std::uint64_t since) const {
  const MutexLock lock(mutex_);
  std::vector<api::Event> out;
  for (const api::Event& event : events_) {
    if (event.sequence > since) out.push_back(event);
  }
  return out;
}

}  // namespace davit::daemon
