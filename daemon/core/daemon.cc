#include "daemon/core/daemon.h"

#include <fmt/format.h>
#include <malloc.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <utility>

#include "common/base/fd.h"
#include "common/base/log.h"
#include "common/base/unix_socket.h"
#include "common/http/server.h"
#include "common/metrics/metrics.h"
#include "daemon/core/daemon_metrics.h"
#include "daemon/core/daemon_parts.h"
#include "daemon/core/dead_mounts.h"
#include "daemon/core/evictions.h"
#include "daemon/core/hung_io.h"
#include "daemon/core/image_store.h"
#include "daemon/core/routes.h"
#include "daemon/core/state_lock.h"

namespace davit::daemon {
namespace {

constexpr std::chrono::seconds kMaintenance{1};
constexpr unsigned kTrimRounds = 5;

Status PrepareMountpoint(const std::string& mountpoint, bool restored) {
  if (!restored) return ClearMountpoint(mountpoint);
  DAVIT_TRY_ASSIGN([[maybe_unused]] const int count, DetachDavitMounts(mountpoint));
  return MakeDirectories(mountpoint);
}

// Keeps buffers of megabytes out of the heaps: malloc's own limit grows with every large block that
// is freed, until libfuse's receive buffers (1 MiB, of which requests touch a page) are cut from
// used heap, where each of their pages counts. And as many heaps as CPUs, not eight times as many.
void BoundHeaps() {
  ::mallopt(M_MMAP_THRESHOLD, 1 << 20);
  ::mallopt(M_ARENA_MAX, static_cast<int>(std::max(2U, std::thread::hardware_concurrency())));
}

std::string ParentOf(const std::string& path) {
  const std::size_t slash = path.find_last_of('/');
  return slash == std::string::npos || slash == 0 ? "/" : path.substr(0, slash);
}

class DaemonImpl final : public Daemon, private Service {
 public:
  explicit DaemonImpl(const Options& options)
      : options_(options),
        events_(static_cast<std::size_t>(options.config.api.events), Clock::Real()),
        metrics_(metrics::Registry::Create()),
        slots_(static_cast<int>(options.config.api.threads) / 2),
        started_at_(std::chrono::system_clock::now()) {}

  ~DaemonImpl() override { Stop(ParseOnStop(options_.config.node.on_stop)); }

  Status Init();
  Service& service() override { return *this; }
  void Stop(OnStop how) override;

 private:
  Status InitStorage();
  Status InitMounts();
  Status InitApi();
  void Maintain(const std::stop_token& stop);
  std::vector<MountService::Live> LiveMounts() const { return mounts_->LiveMounts(); }

  api::DaemonInfo Info() const override;
  Status SetLogLevel(std::string_view level) override;
  Result<api::MountInfo> Mount(const api::MountRequest& request, Duration wait) override {
    const TimePoint began = Clock::Real().Now();
    auto info = mounts_->Mount(request, wait);
    if (info.ok() && info->state == "mounted") {
      mount_seconds_->Observe(std::chrono::duration<double>(Clock::Real().Now() - began).count());
    }
    if (!info) mount_failures_->Add();
    return info;
  }
  Result<bool> Unmount(const std::string& id, bool force, Duration wait) override {
    return mounts_->Unmount(id, force, wait);
  }
  Result<api::MountInfo> Get(const std::string& id) const override { return mounts_->Get(id); }
  std::vector<api::MountInfo> List() const override { return mounts_->List(); }
  Status Prefetch(const std::string& id, const std::vector<std::string>& paths) override {
    return mounts_->Prefetch(id, paths);
  }
  std::vector<api::Event> Events(std::uint64_t since) const override {
    return events_.Since(since);
  }
  std::string ConfigJson() const override { return config::ToJson(options_.config); }
  std::string MetricsJson() const override { return metrics_->Json(); }
  std::string MetricsText() const override { return metrics_->PrometheusText(); }
  std::vector<api::InflightIo> Inflight() const override {
    return ListInflight(LiveMounts(), options_.config.fuse.hung_io_after);
  }
  api::CacheInfo Cache() const override;
  Result<std::optional<std::uint64_t>> Evict(std::uint64_t bytes, Duration wait) override {
    return evictions_->Run(bytes, wait);
  }

  const Options options_;
  EventLog events_;
  const std::unique_ptr<metrics::Registry> metrics_;
  WaitSlots slots_;
  const std::chrono::system_clock::time_point started_at_;
  metrics::Histogram* mount_seconds_ = nullptr;
  metrics::Counter* mount_failures_ = nullptr;
  metrics::Counter* hung_total_ = nullptr;
  std::atomic<bool> draining_{false};
  std::atomic<bool> stopped_{false};
  std::uint64_t budget_bytes_ = 0;

  // In the order in which they are built.
  UniqueFd state_lock_;
  std::unique_ptr<http::Client> http_;
  std::unique_ptr<storage::Scheduler> scheduler_;
  std::unique_ptr<storage::BlobCache> cache_;
  std::unique_ptr<Evictions> evictions_;
  std::shared_ptr<registry::CredentialProvider> credentials_;
  std::unique_ptr<registry::Registries> registries_, plain_registries_;
  std::unique_ptr<ImageStore> images_;
  std::shared_ptr<MountService> mounts_;
  std::shared_ptr<void> collector_;
  std::unique_ptr<http::Server> server_, metrics_server_;
  std::jthread maintenance_;
};

Status DaemonImpl::InitStorage() {
  const Config& config = options_.config;
  DAVIT_TRY(MakeDirectories(config.node.state_dir));
  // First of all: the mounts of a daemon that lives are not ours to clear away.
  DAVIT_TRY_ASSIGN(state_lock_, LockStateDirectory(config.node.state_dir));
  if (options_.serve_api) DAVIT_TRY(RemoveStaleSocket(config.api.socket));
  DAVIT_TRY(MakeDirectories(config::CacheDirectory(config)));
  http_ = http::Client::Create({.user_agent = "davit/" + options_.version});
  scheduler_ = storage::Scheduler::Create(SchedulerOptions(config), Clock::Real());
  const storage::BlobCache::Options cache_options = CacheOptions(config);
  budget_bytes_ = cache_options.budget_bytes;
  DAVIT_TRY_ASSIGN(cache_, storage::BlobCache::Open(cache_options, storage::CacheFiles::Real(),
                                                    *scheduler_, Clock::Real()));
  evictions_ = std::make_unique<Evictions>(
      [this](std::uint64_t bytes) { return cache_->Evict(bytes); }, events_);
  credentials_ = ConfiguredCredentials(config);
  registries_ = registry::Registries::Create(RegistryOptionsOf(config, false), *http_,
                                             Clock::Real(), credentials_);
  plain_registries_ = registry::Registries::Create(RegistryOptionsOf(config, true), *http_,
                                                   Clock::Real(), credentials_);
  return {};
}

Status DaemonImpl::InitMounts() {
  const Config& config = options_.config;
  DAVIT_TRY_ASSIGN(images_, ImageStore::Create(
                                {.directory = config.node.state_dir + "/images",
                                 .keep_unused = static_cast<std::size_t>(config.node.keep_images)},
                                [this](const registry::Reference& reference, bool plain_http,
                                       std::shared_ptr<registry::CredentialProvider> credentials) {
                                  return (plain_http ? plain_registries_ : registries_)
                                      ->Open(reference, std::move(credentials));
                                },
                                *cache_, *scheduler_));
  DAVIT_TRY_ASSIGN(MountStore store, MountStore::Open(config.node.state_dir + "/mounts"));
  mounts_ = MountService::Create(MountOptions(config), {.images = *images_,
                                                        .events = events_,
                                                        .store = std::move(store),
                                                        .mounter = rafs::FuseSession::Start,
                                                        .prepare = PrepareMountpoint,
                                                        .clock = Clock::Real(),
                                                        .credentials = credentials_});
  mount_seconds_ = &metrics_->AddHistogram("davit_mount_seconds", "Time that mount requests took",
                                           metrics::LatencyBuckets());
  mount_failures_ = &metrics_->AddCounter("davit_mount_failures_total", "Mount requests refused");
  hung_total_ = &metrics_->AddCounter("davit_fuse_hung_requests_total",
                                      "Requests of the kernel that waited too long");
  metrics_
      ->AddGauge("davit_build_info", "Always 1; the version is a label",
                 {{"version", options_.version}})
      .Set(1);
  collector_ = metrics_->AddCollector([this](metrics::Sink& sink) {
    CollectScheduler(scheduler_->stats(), sink);
    CollectCache(cache_->stats(), budget_bytes_, sink);
    CollectMounts(LiveMounts(), options_.config.fuse.hung_io_after, sink);
    CollectProcess(sink);
  });
  return mounts_->Restore();
}

Status DaemonImpl::InitApi() {
  const Config::Api& api = options_.config.api;
  const RouteOptions routes;
  const auto handler = [this, routes](const http::ServerRequest& request) {
    return Handle(*this, slots_, routes, request);
  };
  DAVIT_TRY(MakeDirectories(ParentOf(api.socket), 0755));
  http::Server::Options serve;
  serve.unix_socket = api.socket;
  serve.threads = static_cast<int>(api.threads);
  DAVIT_TRY_ASSIGN(server_, http::Server::Start(serve, handler));
  if (api.metrics_address.empty()) return {};
  http::Server::Options tcp;
  tcp.address = api.metrics_address;
  tcp.threads = 2;
  // Over TCP nothing but what may be seen by everybody who can connect.
  DAVIT_TRY_ASSIGN(
      metrics_server_, http::Server::Start(tcp, [handler](const http::ServerRequest& request) {
        if (request.method == "GET" && (request.path == "/metrics" || request.path == "/healthz")) {
          return handler(request);
        }
        return http::Response{404, {}, ""};  // the server says why
      }));
  return {};
}

Status DaemonImpl::Init() {
  RaiseFileLimit();
  BoundHeaps();
  DAVIT_TRY(InitStorage());
  DAVIT_TRY(InitMounts());
  maintenance_ = std::jthread([this](const std::stop_token& stop) { Maintain(stop); });
  if (options_.serve_api) DAVIT_TRY(InitApi());
  log::Info("davitd runs", {{"version", options_.version},
                            {"state_dir", options_.config.node.state_dir},
                            {"socket", options_.serve_api ? options_.config.api.socket : ""}});
  return {};
}

void DaemonImpl::Maintain(const std::stop_token& stop) {
  SetThreadName("maintenance");
  HungIoReport report;
  for (unsigned round = 1; Clock::Real().SleepFor(kMaintenance, stop); ++round) {
    // Opening images leaves holes in the heaps of the threads that did it.
    if (round % kTrimRounds == 0) ::malloc_trim(0);
    const auto live = LiveMounts();
    const int fresh =
        report.Check(ListInflight(live, options_.config.fuse.hung_io_after), live, events_);
    if (fresh > 0) hung_total_->Add(fresh);
    mounts_->Maintain();
  }
}

void DaemonImpl::Stop(OnStop how) {
  if (stopped_.exchange(true)) return;
  draining_ = true;
  maintenance_.request_stop();
  if (maintenance_.joinable()) maintenance_.join();
  if (mounts_ != nullptr) mounts_->Shutdown(how);
  // Until here the API answered; requests that waited for mounts have their answers now.
  server_.reset();
  metrics_server_.reset();
  collector_.reset();
  evictions_.reset();
  if (cache_ != nullptr) {
    const Status flushed = cache_->Flush();
    if (!flushed) log::Warn("cannot make the cache durable", {{"error", flushed.error()}});
  }
  log::Info("davitd ended");
}

api::DaemonInfo DaemonImpl::Info() const {
  api::DaemonInfo info;
  info.version = options_.version;
  info.state = draining_ ? "draining" : mounts_->restored() ? "running" : "starting";
  info.pid = ::getpid();
  info.started_at_unix =
      std::chrono::duration_cast<std::chrono::seconds>(started_at_.time_since_epoch()).count();
  info.mounts = LiveMounts().size();
  info.log_level = log::LevelName(log::GetLevel());
  return info;
}

Status DaemonImpl::SetLogLevel(std::string_view level) {
  DAVIT_TRY_ASSIGN(const log::Level parsed, log::ParseLevel(level));
  log::SetLevel(parsed);
  log::Info("log level set", {{"level", level}});
  return {};
}

api::CacheInfo DaemonImpl::Cache() const {
  const storage::BlobCache::Stats stats = cache_->stats();
  api::CacheInfo info;
  info.directory = config::CacheDirectory(options_.config);
  info.budget_bytes = budget_bytes_;
  info.bytes_on_disk = stats.bytes_on_disk;
  info.hits = stats.hits;
  info.misses = stats.misses;
  info.fetched_bytes = stats.fetched_bytes;
  info.deduplicated_bytes = stats.deduplicated_bytes;
  info.corrupt_chunks = stats.corrupt_chunks;
  info.lost_chunks = stats.lost_chunks;
  info.evicted_bytes = stats.evicted_bytes;
  info.write_errors = stats.write_errors;
  for (const storage::BlobCache::BlobInfo& blob : cache_->List()) {
    info.blobs.push_back({.id = blob.id.value,
                          .bytes_total = blob.progress.bytes_total,
                          .bytes_ready = blob.progress.bytes_ready,
                          .complete = blob.progress.complete,
                          .in_use = blob.in_use,
                          .last_use_unix = blob.last_use_unix});
  }
  return info;
}

}  // namespace

OnStop ParseOnStop(std::string_view text) {
  if (text == "keep") return OnStop::kKeep;
  if (text == "forget") return OnStop::kForget;
  return OnStop::kUnmount;
}

void RaiseFileLimit() {
  constexpr rlim_t kComfortable = 65'536;
  rlimit limit{};
  if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
  if (limit.rlim_cur < limit.rlim_max) {
    limit.rlim_cur = limit.rlim_max;
    ::setrlimit(RLIMIT_NOFILE, &limit);
  }
  if (limit.rlim_cur >= kComfortable) return;
  log::Warn("the limit of open files is low; many mounts or blobs may fail with EMFILE",
            {{"limit", limit.rlim_cur}, {"wanted", kComfortable}});
}

Result<std::unique_ptr<Daemon>> Daemon::Start(const Options& options) {
  auto daemon = std::make_unique<DaemonImpl>(options);
  DAVIT_TRY(daemon->Init());
  return std::unique_ptr<Daemon>(std::move(daemon));
}

}  // namespace davit::daemon
