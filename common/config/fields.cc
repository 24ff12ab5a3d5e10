#include "common/config/fields.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "common/config/units.h"

namespace davit::config {
namespace {

constexpr double kKi = 1024, kMi = kKi * 1024, kTi = kMi * 1024 * 1024, kDay = 86'400'000;

#define AT(member) [](Config& c) -> FieldRef { return &c.member; }

constexpr std::array<SectionInfo, 8> kSections{{
    {"node", "This machine and what davit keeps on it."},
    {"api", "How the daemon is spoken to."},
    {"registry", "How registries are reached, and with which credentials."},
    {"cache", "The node's verified copy of what was read."},
    {"scheduler", "Order, limits and patience of all remote reads."},
    {"fuse", "Mounts served through FUSE."},
    {"log", "Where the log goes and how it looks."},
    {"csi", "The CSI driver davit-csi."},
}};

using enum FieldType;

constexpr FieldInfo kFields[] = {
    {"node.id", kString, AT(node.id), "the host name", 0, 0, "",
     "Name of this node in CSI and in metrics."},
    {"node.state_dir", kPath, AT(node.state_dir),
     "/var/lib/davit; without root $XDG_STATE_HOME/davit", 0, 0, "",
     "Everything that must survive a restart: mounts, image metadata, the cache."},
    {"node.on_stop", kString, AT(node.on_stop), "", 0, 0, "unmount|keep|forget",
     "What SIGTERM does with mounts. `unmount`: unmount them and mount them again at the next "
     "start. `keep`: leave them in place; reads fail until the daemon is back. `forget`: unmount "
     "them for good."},
    {"node.mount_threads", kInt, AT(node.mount_threads), "", 1, 64, "",
     "Mounts that are made at the same time."},
    {"node.mount_timeout", kDuration, AT(node.mount_timeout), "", 1'000, kDay, "",
     "Time to resolve an image, fetch its metadata and mount it. Waiting for `ready` modes beyond "
     "`mounted` is not counted."},
    {"node.keep_images", kInt, AT(node.keep_images), "", 0, 100'000, "",
     "Image metadata directories that are kept although nothing mounts them."},

    {"api.socket", kPath, AT(api.socket),
     "/run/davit/davitd.sock; without root $XDG_RUNTIME_DIR/davit/davitd.sock", 0, 0, "",
     "Unix socket of the HTTP API (mode 0600)."},
    {"api.threads", kInt, AT(api.threads), "", 4, 512, "",
     "Threads that answer requests. At most half of them wait for mounts."},
    {"api.metrics_address", kString, AT(api.metrics_address), "none", 0, 0, "",
     "Also serve `/metrics` and `/healthz` over TCP here, for example 127.0.0.1:9470."},
    {"api.events", kInt, AT(api.events), "", 16, 1'000'000, "",
     "Number of events that are kept for `/api/v1/events`."},

    {"registry.docker_config", kPath, AT(registry.docker_config),
     "$DOCKER_CONFIG/config.json or ~/.docker/config.json", 0, 0, "",
     "Docker's config.json with credentials; read again when it changes."},
    {"registry.credential_helpers", kList, AT(registry.credential_helpers), "none", 0, 0, "",
     "Names of credential helpers (NAME runs docker-credential-NAME) that are asked for every "
     "registry the Docker configuration has nothing for."},
    {"registry.plain_http_hosts", kList, AT(registry.plain_http_hosts), "none", 0, 0, "",
     "Registry hosts (with port) that are spoken to without TLS."},
    {"registry.hosts_dir", kPath, AT(registry.hosts_dir), "none", 0, 0, "",
     "Mirrors: a directory with HOST/hosts.toml files as containerd reads them, looked at again "
     "after changes."},
    {"registry.ca_files", kList, AT(registry.ca_files), "none", 0, 0, "",
     "PEM files with certificate authorities that are trusted besides the system's."},
    {"registry.client_cert_file", kPath, AT(registry.client_cert_file), "none", 0, 0, "",
     "PEM certificate shown to registries; needs client_key_file."},
    {"registry.client_key_file", kPath, AT(registry.client_key_file), "none", 0, 0, "",
     "PEM key of client_cert_file."},
    {"registry.skip_verify", kBool, AT(registry.skip_verify), "", 0, 0, "",
     "Do not verify certificates of registries. Content is verified by digest all the same, "
     "credentials are not safe."},
    {"registry.proxy", kString, AT(registry.proxy), "http_proxy, https_proxy, no_proxy", 0, 0, "",
     "Proxy URL for all registries, http://[user:password@]host:port. Empty: HTTP_PROXY and "
     "HTTPS_PROXY of the environment. Hosts in NO_PROXY "
     "(names or networks, without ports) are reached directly in both cases."},
    {"registry.connect_timeout", kDuration, AT(registry.connect_timeout), "", 100, 600'000, "",
     "Time to connect."},
    {"registry.stall_timeout", kDuration, AT(registry.stall_timeout), "", 100, 600'000, "",
     "A transfer that brings no byte for this long has failed (and is tried again)."},
    {"registry.retries", kInt, AT(registry.retries), "", 0, 100, "",
     "Tries of manifest requests after the first. Reads of blobs: see scheduler."},

    {"cache.directory", kPath, AT(cache.directory), "<node.state_dir>/cache", 0, 0, "",
     "One process owns it. Needs a file system with sparse files."},
    {"cache.budget_bytes", kSize, AT(cache.budget_bytes), "0: half of the file system", 0, kTi* kMi,
     "", "Disk space for cached data; the least recently used goes first."},
    {"cache.high_watermark", kFloat, AT(cache.high_watermark), "", 0.1, 1, "",
     "Share of the budget at which eviction starts."},
    {"cache.low_watermark", kFloat, AT(cache.low_watermark), "", 0.05, 1, "",
     "Share of the budget at which eviction stops."},
    {"cache.reserve_free_bytes", kSize, AT(cache.reserve_free_bytes), "", 0, kTi* kMi, "",
     "Free space of the file system that is left to others, whatever the budget."},
    {"cache.fetch_threads", kInt, AT(cache.fetch_threads), "", 1, 256, "",
     "Transfers that run at the same time."},
    {"cache.decode_threads", kInt, AT(cache.decode_threads), "0: one per CPU", 0, 256, "",
     "Threads that decompress and verify."},
    {"cache.max_buffer_bytes", kSize, AT(cache.max_buffer_bytes), "", kMi, kTi, "",
     "Memory between network and disk."},
    {"cache.max_request_bytes", kSize, AT(cache.max_request_bytes), "", 64 * kKi, kTi, "",
     "Largest range of one request."},
    {"cache.merge_gap_bytes", kSize, AT(cache.merge_gap_bytes), "", 0, kTi, "",
     "Unwanted bytes that are fetched to save a request."},
    {"cache.flush_interval", kDuration, AT(cache.flush_interval), "", 10, 600'000, "",
     "How often newly cached chunks are made durable; a power cut costs at most this much work."},
    {"cache.verify_on_start", kBool, AT(cache.verify_on_start), "", 0, 0, "",
     "Verify every cached chunk again at the start (slow)."},
    {"cache.fill", kBool, AT(cache.fill), "", 0, 0, "",
     "Fetch the rest of mounted images in the background. A mount can also ask for no fill."},

    {"scheduler.max_requests_per_host", kInt, AT(scheduler.max_requests_per_host), "", 1, 1'000, "",
     "Requests to one registry host at the same time."},
    {"scheduler.max_background_requests", kInt, AT(scheduler.max_background_requests), "", 1, 1'000,
     "", "How many of them may be background work."},
    {"scheduler.background_bytes_per_second", kSize, AT(scheduler.background_bytes_per_second),
     "0: no limit", 0, kTi* kMi, "", "Bandwidth of background work on this node."},
    {"scheduler.demand_patience", kDuration, AT(scheduler.demand_patience), "", 0, kDay, "",
     "How long a reader waits for a registry that is away before it gets EIO."},
    {"scheduler.background_patience", kDuration, AT(scheduler.background_patience), "", 0,
     30 * kDay, "", "The same for background work."},
    {"scheduler.backoff_min", kDuration, AT(scheduler.backoff_min), "", 1, 600'000, "",
     "First wait between two tries."},
    {"scheduler.backoff_max", kDuration, AT(scheduler.backoff_max), "", 1, 3'600'000, "",
     "Longest wait between two tries."},
    {"scheduler.breaker_failures", kInt, AT(scheduler.breaker_failures), "", 1, 1'000, "",
     "Failures in a row after which a host is probed by one request at a time."},

    {"fuse.threads", kInt, AT(fuse.threads), "", 1, 256, "",
     "Threads of one mount at rest, at most."},
    {"fuse.max_threads", kInt, AT(fuse.max_threads), "", 1, 1'024, "",
     "Threads of one mount while reads wait for the network."},
    {"fuse.allow_other", kBool, AT(fuse.allow_other), "true as root, else false", 0, 0, "",
     "Other users than the daemon's may read. Without root this needs user_allow_other in "
     "/etc/fuse.conf."},
    {"fuse.default_permissions", kBool, AT(fuse.default_permissions), "", 0, 0, "",
     "The kernel checks permissions by mode, owner and group."},
    {"fuse.read_ahead_bytes", kSize, AT(fuse.read_ahead_bytes), "", 0, 64 * kMi, "",
     "Read-ahead of the kernel."},
    {"fuse.hung_io_after", kDuration, AT(fuse.hung_io_after), "", 100, kDay, "",
     "A request of the kernel that is unanswered for this long is reported."},

    {"log.level", kString, AT(log.level), "", 0, 0, "trace|debug|info|warn|error|off",
     "Least important lines that are written."},
    {"log.format", kString, AT(log.format), "", 0, 0, "text|json", "One line per event."},
    {"log.file", kPath, AT(log.file), "standard error", 0, 0, "", "File of the log, rotated."},
    {"log.rotate_bytes", kSize, AT(log.rotate_bytes), "", 64 * kKi, kTi, "",
     "Size at which the file is rotated."},
    {"log.keep_files", kInt, AT(log.keep_files), "", 0, 1'000, "",
     "Rotated files that are kept; FILE.1 is the newest."},

    {"csi.endpoint", kString, AT(csi.endpoint), "", 0, 0, "", "Where davit-csi listens."},
    {"csi.driver_name", kString, AT(csi.driver_name), "", 0, 0, "",
     "Name under which the driver registers."},
    {"csi.max_volumes", kInt, AT(csi.max_volumes), "0: no limit", 0, 1'000'000, "",
     "Volumes that the scheduler may place on this node."},
    {"csi.embedded_daemon", kBool, AT(csi.embedded_daemon), "", 0, 0, "",
     "Start davitd as a child process when none answers at api.socket."},
};

#undef AT

}  // namespace

std::span<const SectionInfo> Sections() { return kSections; }
std::span<const FieldInfo> Fields() { return kFields; }

const FieldInfo* FindField(std::string_view key) {
  for (const FieldInfo& field : Fields()) {
    if (field.key == key) return &field;
  }
  return nullptr;
}

std::string_view TypeName(FieldType type) {
  switch (type) {
    case kString:
      return "text";
    case kPath:
      return "path";
    case kBool:
      return "true/false";
    case kInt:
      return "integer";
    case kFloat:
      return "number";
    case kSize:
      return "size";
    case kDuration:
      return "duration";
    case kList:
      return "list of texts";
  }
  return "";
}

std::string FormatValue(const FieldInfo& field, Config& config) {
  struct Visitor {
    std::string operator()(const std::string* v) const { return *v; }
    std::string operator()(const bool* v) const { return *v ? "true" : "false"; }
    std::string operator()(const std::int64_t* v) const { return fmt::format("{}", *v); }
    std::string operator()(const double* v) const { return fmt::format("{}", *v); }
    std::string operator()(const std::uint64_t* v) const { return FormatSize(*v); }
    std::string operator()(const std::chrono::milliseconds* v) const { return FormatDuration(*v); }
    std::string operator()(const std::vector<std::string>* v) const {
      return fmt::format("[{}]", fmt::join(*v, ", "));
    }
  };
  return std::visit(Visitor{}, field.ref(config));
}

}  // namespace davit::config
