#pragma once
// The endpoints of one registry, as the files of hosts_dir say now.

#include <memory>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/sync.h"
#include "storage/registry/hosts.h"

namespace davit::registry {

/// Thread-safe. Looks once a second at most whether a file has changed; what cannot be used is
/// reported once, and the endpoints stay as they were.
class EndpointList {
 public:
  using List = std::shared_ptr<const std::vector<Endpoint>>;

  /// The errors of LoadEndpoints(). `clock` must outlive it.
  static Result<std::unique_ptr<EndpointList>> Load(std::string dirs, std::string host,
                                                    HostDefaults defaults, Clock& clock);
  /// Mirrors, then the registry. The list stays as it is for who holds it.
  List Get();

 private:
  EndpointList(std::string dirs, std::string host, HostDefaults defaults, Clock& clock)
      : dirs_(std::move(dirs)),
        host_(std::move(host)),
        defaults_(std::move(defaults)),
        clock_(clock) {}

  const std::string dirs_;
  const std::string host_;
  const HostDefaults defaults_;
  Clock& clock_;
  Mutex mutex_;
  List list_ DAVIT_GUARDED_BY(mutex_);
  std::string version_ DAVIT_GUARDED_BY(mutex_);  // of the files
  TimePoint look_at_ DAVIT_GUARDED_BY(mutex_){};
};

}  // namespace davit::registry
