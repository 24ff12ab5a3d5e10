#pragma once
// What the HTTP API offers, as an interface: routes.cc turns requests into these calls, tests put
// a fake behind it.

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "common/base/clock.h"
#include "common/base/result.h"
#include "daemon/api/types.h"

namespace davit::daemon {

/// Thread-safe. No call waits for I/O, but Mount(), Unmount() and Evict(), and these at most
/// `wait`.
class Service {
 public:
  virtual ~Service() = default;

  virtual api::DaemonInfo Info() const = 0;
  virtual Status SetLogLevel(std::string_view level) = 0;

  /// The mount; `state` is "mounting" when it was not done after `wait` (it goes on).
  virtual Result<api::MountInfo> Mount(const api::MountRequest& request, Duration wait) = 0;
  /// True when the mount is gone (also: never was), false when it was not after `wait`. `force`
  /// detaches a busy one.
  virtual Result<bool> Unmount(const std::string& id, bool force, Duration wait) = 0;
  virtual Result<api::MountInfo> Get(const std::string& id) const = 0;
  virtual std::vector<api::MountInfo> List() const = 0;
  /// Starts to fetch files or directories of a mount; no paths: all of it.
  virtual Status Prefetch(const std::string& id, const std::vector<std::string>& paths) = 0;

  /// Events after `since` (a sequence number), oldest first.
  virtual std::vector<api::Event> Events(std::uint64_t since) const = 0;
  virtual std::string ConfigJson() const = 0;
  virtual std::string MetricsJson() const = 0;
  virtual std::string MetricsText() const = 0;
  virtual std::vector<api::InflightIo> Inflight() const = 0;
  virtual api::CacheInfo Cache() const = 0;
  /// Frees at least `bytes` if it can; the bytes freed. Nothing when that was not done after
  /// `wait`: it goes on, and an event tells of its end.
  virtual Result<std::optional<std::uint64_t>> Evict(std::uint64_t bytes, Duration wait) = 0;
};

}  // namespace davit::daemon
