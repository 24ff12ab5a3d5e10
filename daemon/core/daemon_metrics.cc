#include "daemon/core/daemon_metrics.h"

#include <sys/resource.h>
#include <unistd.h>

#include <charconv>

#include "common/base/fd.h"
#include "daemon/core/hung_io.h"

namespace davit::daemon {
namespace {

double AsDouble(std::uint64_t value) { return static_cast<double>(value); }

// The number behind "Name:" in /proc/self/status.
double StatusValue(std::string_view text, std::string_view name) {
  const std::size_t at = text.find(name);
  if (at == std::string_view::npos) return 0;
  text.remove_prefix(at + name.size());
  const std::size_t digit = text.find_first_of("0123456789");
  if (digit == std::string_view::npos) return 0;
  std::uint64_t value = 0;
  std::from_chars(text.data() + digit, text.data() + text.size(), value);
  return AsDouble(value);
}

double Seconds(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) / 1e6;
}

}  // namespace

void CollectScheduler(const storage::Scheduler::Stats& stats, metrics::Sink& sink) {
  for (int i = 0; i < kCauseCount; ++i) {
    const metrics::Labels labels{{"cause", std::string(CauseName(static_cast<Cause>(i)))}};
    sink.Counter("davit_remote_requests_total", "Ranges asked of registries",  // per cause
                 AsDouble(stats.requests[i]), labels);
    sink.Counter("davit_remote_bytes_total", "Bytes received from registries",
                 AsDouble(stats.bytes[i]), labels);
  }
  sink.Counter("davit_remote_retries_total", "Reads of registries that were tried again",
               AsDouble(stats.retries));
  sink.Counter("davit_remote_failures_total", "Reads of registries that were given up",
               AsDouble(stats.failures));
  sink.Counter("davit_remote_throttled_total", "Times a registry asked to be left alone",
               AsDouble(stats.throttled));
  sink.Gauge("davit_remote_running", "Transfers that run", stats.running);
  sink.Gauge("davit_remote_waiting", "Transfers that wait for their turn", stats.waiting);
}

void CollectCache(const storage::BlobCache::Stats& stats, std::uint64_t budget,
                  metrics::Sink& sink) {
  sink.Gauge("davit_cache_bytes", "Disk space of cached data", AsDouble(stats.bytes_on_disk));
  sink.Gauge("davit_cache_budget_bytes", "Disk space that the cache may use", AsDouble(budget));
  sink.Gauge("davit_cache_blobs", "Blobs in the cache", AsDouble(stats.blobs));
  sink.Counter("davit_cache_hits_total", "Chunks that were local when wanted",
               AsDouble(stats.hits));
  sink.Counter("davit_cache_misses_total", "Chunks that had to be fetched", AsDouble(stats.misses));
  sink.Counter("davit_cache_fetched_bytes_total", "Compressed bytes fetched",
               AsDouble(stats.fetched_bytes));
  sink.Counter("davit_cache_deduplicated_bytes_total", "Bytes copied from another cached blob",
               AsDouble(stats.deduplicated_bytes));
  sink.Counter("davit_cache_corrupt_chunks_total", "Chunks that arrived damaged",
               AsDouble(stats.corrupt_chunks));
  sink.Counter("davit_cache_evicted_bytes_total", "Bytes given up for the budget",
               AsDouble(stats.evicted_bytes));
  sink.Counter("davit_cache_write_errors_total", "Writes to the cache that failed",
               AsDouble(stats.write_errors));
  sink.Counter("davit_cache_lost_chunks_total",
               "Cached chunks that the disk did not give back; they are fetched anew",
               AsDouble(stats.lost_chunks));
}

void CollectMounts(const std::vector<MountService::Live>& mounts,
                   std::chrono::milliseconds hung_after, metrics::Sink& sink) {
  rafs::FuseStats sum;
  for (const MountService::Live& live : mounts) {
    const rafs::FuseStats one = live.session->stats();
    sum.lookups += one.lookups;
    sum.getattrs += one.getattrs;
    sum.opens += one.opens;
    sum.reads += one.reads;
    sum.read_bytes += one.read_bytes;
    sum.readdirs += one.readdirs;
    sum.xattrs += one.xattrs;
    sum.errors += one.errors;
  }
  std::uint64_t hung = 0;
  const auto inflight = ListInflight(mounts, hung_after);
  for (const api::InflightIo& io : inflight) hung += io.hung ? 1 : 0;
  sink.Gauge("davit_mounts", "Mounts that serve", AsDouble(mounts.size()));
  sink.Gauge("davit_fuse_inflight_requests", "Requests of the kernel without an answer yet",
             AsDouble(inflight.size()));
  sink.Gauge("davit_fuse_hung_requests", "Those of them that wait longer than fuse.hung_io_after",
             AsDouble(hung));
  // Gauges: the numbers of a mount go with it.
  const auto operations = [&](const char* name, std::uint64_t value) {
    sink.Gauge("davit_fuse_requests", "Requests answered by the present mounts", AsDouble(value),
               {{"operation", name}});
  };
  operations("lookup", sum.lookups);
  operations("getattr", sum.getattrs);
  operations("open", sum.opens);
  operations("read", sum.reads);
  operations("readdir", sum.readdirs);
  operations("xattr", sum.xattrs);
  sink.Gauge("davit_fuse_read_bytes", "Bytes read from the present mounts",
             AsDouble(sum.read_bytes));
  sink.Gauge("davit_fuse_errors", "Errors answered by the present mounts", AsDouble(sum.errors));
}

void CollectProcess(metrics::Sink& sink) {
  const auto status = ReadFile("/proc/self/status", 1U << 16);
  if (status) {
    sink.Gauge("process_resident_memory_bytes", "Resident memory",
               StatusValue(*status, "VmRSS:") * 1024);
    sink.Gauge("process_threads", "Threads", StatusValue(*status, "Threads:"));
  }
  rusage usage{};
  if (::getrusage(RUSAGE_SELF, &usage) == 0) {
    sink.Counter("process_cpu_seconds_total", "CPU time",
                 Seconds(usage.ru_utime) + Seconds(usage.ru_stime));
  }
  const auto descriptors = ListDirectory("/proc/self/fd");
  if (descriptors) sink.Gauge("process_open_fds", "Open files", AsDouble(descriptors->size()));
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    sink.Gauge("process_max_fds", "Limit of open files", AsDouble(limit.rlim_cur));
  }
}

}  // namespace davit::daemon
