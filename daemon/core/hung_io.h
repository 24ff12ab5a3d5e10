#pragma once
// Requests of the kernel that stay unanswered: listed, counted, reported once.

#include <chrono>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "daemon/api/types.h"
#include "daemon/core/event_log.h"
#include "daemon/core/mount_service.h"

namespace davit::daemon {

/// What is in flight, oldest first; `hung` when at least as old as `hung_after`.
std::vector<api::InflightIo> ListInflight(const std::vector<MountService::Live>& mounts,
                                          std::chrono::milliseconds hung_after);

/// Remembers what it has reported. Not thread-safe: for one maintenance thread.
class HungIoReport {
 public:
  /// Logs a warning and adds an event for each request that is hung and was not reported yet; the
  /// number of those.
  int Check(const std::vector<api::InflightIo>& inflight,
            const std::vector<MountService::Live>& mounts, EventLog& events);

 private:
  using Key = std::tuple<std::string, std::string, std::uint64_t, std::uint64_t, std::uint64_t>;
  std::set<Key> reported_;
};

}  // namespace davit::daemon
