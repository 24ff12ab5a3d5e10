#pragma once
// From the configuration to the options of the lower modules. What concerns registries is for the
// command line too, so that both reach them alike; the rest is internal to daemon/core.

#include <memory>

#include "common/config/config.h"
#include "daemon/core/mount_service.h"
#include "storage/cache/blob_cache.h"
#include "storage/registry/client.h"
#include "storage/sched/scheduler.h"

namespace davit::daemon {

storage::Scheduler::Options SchedulerOptions(const Config& config);
/// A budget of 0 becomes half of the file system. The directory exists.
storage::BlobCache::Options CacheOptions(const Config& config);
registry::RegistryOptions RegistryOptionsOf(const Config& config, bool plain_http);
/// IMAGE_PULL_AUTH, Docker's configuration, helpers: the first that has something.
std::shared_ptr<registry::CredentialProvider> ConfiguredCredentials(const Config& config);
MountService::Options MountOptions(const Config& config);

}  // namespace davit::daemon
