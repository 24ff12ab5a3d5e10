#pragma once
// Values of the lower modules as metrics, asked for at each output.

#include "common/metrics/metrics.h"
#include "daemon/core/mount_service.h"
#include "storage/cache/blob_cache.h"
#include "storage/sched/scheduler.h"

namespace davit::daemon {

void CollectScheduler(const storage::Scheduler::Stats& stats, metrics::Sink& sink);
void CollectCache(const storage::BlobCache::Stats& stats, std::uint64_t budget,
                  metrics::Sink& sink);
/// Requests of the kernel, summed over the mounts: labels per mount would grow without bound.
void CollectMounts(const std::vector<MountService::Live>& mounts,
                   std::chrono::milliseconds hung_after, metrics::Sink& sink);
/// Memory, CPU time, descriptors and threads of this process.
void CollectProcess(metrics::Sink& sink);

}  // namespace davit::daemon
