#include "daemon/core/daemon_parts.h"

#include <sys/statvfs.h>

#include <utility>

namespace davit::daemon {

storage::Scheduler::Options SchedulerOptions(const Config& config) {
  const Config::Scheduler& in = config.scheduler;
  storage::Scheduler::Options out;
  out.max_requests_per_host = static_cast<int>(in.max_requests_per_host);
  out.max_background_requests = static_cast<int>(in.max_background_requests);
  out.background_bytes_per_second = in.background_bytes_per_second;
  out.demand_patience = in.demand_patience;
  out.background_patience = in.background_patience;
  out.backoff_min = in.backoff_min;
  out.backoff_max = in.backoff_max;
  out.breaker_failures = static_cast<int>(in.breaker_failures);
  return out;
}

// Between two waits of a program that starts there is less.
constexpr std::chrono::milliseconds kQuietPeriod{400};

storage::BlobCache::Options CacheOptions(const Config& config) {
  const Config::Cache& in = config.cache;
  storage::BlobCache::Options out;
  out.directory = config::CacheDirectory(config);
  out.budget_bytes = in.budget_bytes;
  struct statvfs st{};
  if (out.budget_bytes == 0 && ::statvfs(out.directory.c_str(), &st) == 0) {
    out.budget_bytes = static_cast<std::uint64_t>(st.f_blocks) * st.f_frsize / 2;
  }
  out.high_watermark = in.high_watermark;
  out.low_watermark = in.low_watermark;
  out.reserve_free_bytes = in.reserve_free_bytes;
  out.fetch_threads = static_cast<int>(in.fetch_threads);
  out.decode_threads = static_cast<int>(in.decode_threads);
  out.max_buffer_bytes = in.max_buffer_bytes;
  out.max_request_bytes = in.max_request_bytes;
  out.merge_gap_bytes = in.merge_gap_bytes;
  out.flush_interval = in.flush_interval;
  out.quiet_period = kQuietPeriod;
  out.verify_on_start = in.verify_on_start;
  return out;
}

registry::RegistryOptions RegistryOptionsOf(const Config& config, bool plain_http) {
  const Config::Registry& in = config.registry;
  registry::RegistryOptions out;
  out.plain_http_hosts = in.plain_http_hosts;
  out.plain_http = plain_http;
  out.tls.ca_files = in.ca_files;
  out.tls.client_cert_file = in.client_cert_file;
  out.tls.client_key_file = in.client_key_file;
  out.tls.skip_verify = in.skip_verify;
  out.proxy = in.proxy;
  out.hosts_dir = in.hosts_dir;
  out.connect_timeout = in.connect_timeout;
  out.stall_timeout = in.stall_timeout;
  out.retries = static_cast<int>(in.retries);
  return out;
}

std::shared_ptr<registry::CredentialProvider> ConfiguredCredentials(const Config& config) {
  std::vector<std::unique_ptr<registry::CredentialProvider>> all;
  all.push_back(registry::EnvironmentAuth());
  all.push_back(registry::DockerConfigFile(config.registry.docker_config));
  for (const std::string& name : config.registry.credential_helpers) {
    all.push_back(registry::CredentialHelper(name));
  }
  return registry::FirstOf(std::move(all));
}

MountService::Options MountOptions(const Config& config) {
  MountService::Options out;
  out.threads = static_cast<int>(config.node.mount_threads);
  out.timeout = config.node.mount_timeout;
  out.fill = config.cache.fill;
  out.fuse.threads = static_cast<int>(config.fuse.threads);
  out.fuse.max_threads = static_cast<int>(config.fuse.max_threads);
  out.fuse.allow_other = config.fuse.allow_other;
  out.fuse.default_permissions = config.fuse.default_permissions;
  out.fuse.read_ahead_bytes = static_cast<std::uint32_t>(config.fuse.read_ahead_bytes);
  out.fuse.buffers = std::make_shared<rafs::ReadBuffers>();
  return out;
}

}  // namespace davit::daemon
