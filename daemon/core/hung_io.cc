#include "daemon/core/hung_io.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/log.h"

namespace davit::daemon {

std::vector<api::InflightIo> ListInflight(const std::vector<MountService::Live>& mounts,
                                          std::chrono::milliseconds hung_after) {
  std::vector<api::InflightIo> out;
  for (const MountService::Live& live : mounts) {
    for (const rafs::InflightRequest& request : live.session->Inflight()) {
      out.push_back(
          {.mount = live.id,
           .operation = request.operation,
           .inode = request.inode,
           .offset = request.offset,
           .size = request.size,
           .age_ms = static_cast<std::uint64_t>(std::max<std::int64_t>(request.age.count(), 0)),
           .hung = request.age >= hung_after});
    }
  }
  std::ranges::sort(out, std::greater<>(), &api::InflightIo::age_ms);
  return out;
}

int HungIoReport::Check(const std::vector<api::InflightIo>& inflight,
                        const std::vector<MountService::Live>& mounts, EventLog& events) {
  std::set<Key> hung;
  int fresh = 0;
  for (const api::InflightIo& io : inflight) {
    if (!io.hung) continue;
    Key key{io.mount, io.operation, io.inode, io.offset, io.size};
    const bool known = reported_.contains(key) || hung.contains(key);
    hung.insert(std::move(key));
    if (known) continue;
    ++fresh;
    const auto mount = std::ranges::find(mounts, io.mount, &MountService::Live::id);
    const log::Scope scope(mount == mounts.end() ? std::vector<log::Field>() : mount->log_fields);
    log::Warn("a request of the kernel hangs", {{"mount", io.mount},
                                                {"operation", io.operation},
                                                {"inode", io.inode},
                                                {"offset", io.offset},
                                                {"size", io.size},
                                                {"age_ms", io.age_ms}});
    events.Add("hung_io", io.mount,
               fmt::format("{} of inode {} at {} waits for {} ms", io.operation, io.inode,
                           io.offset, io.age_ms));
  }
  reported_ = std::move(hung);  // one that was answered and hangs anew is news again
  return fresh;
}

}  // namespace davit::daemon
