#include "storage/registry/endpoint_list.h"

#include "common/base/log.h"

namespace davit::registry {
namespace {
constexpr std::chrono::seconds kLookInterval{1};
}

Result<std::unique_ptr<EndpointList>> EndpointList::Load(std::string dirs, std::string host,
                                                         HostDefaults defaults, Clock& clock) {
  std::unique_ptr<EndpointList> out(
      new EndpointList(std::move(dirs), std::move(host), std::move(defaults), clock));
  // First the version: a change in between is then noticed.
  std::string version = HostsVersion(out->dirs_, out->host_);
  DAVIT_TRY_ASSIGN(std::vector<Endpoint> endpoints,
                   LoadEndpoints(out->dirs_, out->host_, out->defaults_));
  const MutexLock lock(out->mutex_);
  out->list_ = std::make_shared<const std::vector<Endpoint>>(std::move(endpoints));
  out->version_ = std::move(version);
  out->look_at_ = clock.Now() + kLookInterval;
  return out;
}

EndpointList::List EndpointList::Get() {
  std::string known;
  {
    const MutexLock lock(mutex_);
    const TimePoint now = clock_.Now();
    if (dirs_.empty() || now < look_at_) return list_;
    look_at_ = now + kLookInterval;
    known = version_;
  }
  // Without the lock: others go on with what there is.
  std::string version = HostsVersion(dirs_, host_);
  if (version == known) {
    const MutexLock lock(mutex_);
    return list_;
  }
  Result<std::vector<Endpoint>> endpoints = LoadEndpoints(dirs_, host_, defaults_);
  const MutexLock lock(mutex_);
  version_ = std::move(version);
  if (endpoints.ok()) {
    log::Info("the endpoints of a registry have changed",
              {{"registry", host_}, {"endpoints", endpoints->size()}});
    list_ = std::make_shared<const std::vector<Endpoint>>(*std::move(endpoints));
  } else {
    log::Warn("changed endpoints of a registry cannot be used; the ones before stay in use",
              {{"registry", host_}, {"error", endpoints.error()}});
  }
  return list_;
}

}  // namespace davit::registry
