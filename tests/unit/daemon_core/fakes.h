#pragma once
// What the daemon's core stands on, without registries, kernel or disk.

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "common/base/sync.h"
#include "common/config/config.h"
#include "daemon/core/image.h"
#include "daemon/core/mount_service.h"
#include "daemon/core/service.h"

namespace davit::testing {

/// A clock that moves when it is told to. Thread-safe.
class ManualClock final : public Clock {
 public:
  TimePoint Now() const override { return TimePoint(Duration(now_.load())); }
  std::chrono::system_clock::time_point WallNow() const override {
    return std::chrono::system_clock::time_point(std::chrono::seconds(1'700'000'000));
  }
  bool SleepFor(Duration duration, std::stop_token stop) override {
    Advance(duration);
    return !stop.stop_requested();
  }
  void Advance(Duration duration) { now_ += duration.count(); }

 private:
  std::atomic<Duration::rep> now_{Duration(std::chrono::hours(1)).count()};
};

/// Answers with what it was told; counts. Waits until Release() where Block() was called.
class FakeImages final : public daemon::ImageProvider {
 public:
  class FakeImage;
  Result<std::shared_ptr<daemon::Image>> Open(const Context& ctx,
                                              const daemon::ImageRequest& request) override;
  void Prune(const std::set<std::string>& needed) override;
  void Maintain() override {}

  void Block();
  void Release();
  void FailWith(std::optional<Error> error);
  /// FetchListed() and Fill() fail; opening does not.
  void FailReadyWith(std::optional<Error> error);
  /// What keeps a fill from coming on.
  void SetAheadError(std::optional<Error> error);
  /// Waits until some image is being filled; false after ten seconds.
  bool AwaitFill();
  /// Ends the fill of all images, waiting for one.
  void EndFills(const Status& status = {});
  void SetDigest(std::string digest);
  std::vector<daemon::ImageRequest> requests() const;
  storage::FillStart last_start() const {
    const MutexLock lock(mutex_);
    return last_start_;
  }
  std::set<std::string> last_needed() const;
  int open_images() const { return open_images_.load(); }
  int prefetches() const { return prefetches_.load(); }
  /// FetchListed waits for this to become true, or its context's end.
  void BlockListed(bool block);

 private:
  friend class FakeImage;
  enum class Gate { kOpen, kListed };
  /// Until nothing blocks the gate.
  Status Wait(const Context& ctx, Gate gate);
  bool IsBlocked(Gate gate) const DAVIT_REQUIRES(mutex_) {
    return gate == Gate::kOpen ? blocked_ : listed_blocked_;
  }

  mutable Mutex mutex_;
  CondVar changed_;
  bool blocked_ DAVIT_GUARDED_BY(mutex_) = false;
  bool listed_blocked_ DAVIT_GUARDED_BY(mutex_) = false;
  std::optional<Error> error_ DAVIT_GUARDED_BY(mutex_);
  std::optional<Error> ready_error_ DAVIT_GUARDED_BY(mutex_);
  std::optional<Error> ahead_error_ DAVIT_GUARDED_BY(mutex_);
  std::string digest_ DAVIT_GUARDED_BY(mutex_) = "sha256:" + std::string(64, 'a');
  std::vector<daemon::ImageRequest> requests_ DAVIT_GUARDED_BY(mutex_);
  std::set<std::string> needed_ DAVIT_GUARDED_BY(mutex_);
  storage::FillStart last_start_ DAVIT_GUARDED_BY(mutex_) = storage::FillStart::kWhenQuiet;
  std::vector<storage::FillEnd> fills_ DAVIT_GUARDED_BY(mutex_);
  std::atomic<int> open_images_{0};
  std::atomic<int> prefetches_{0};
};

/// Sessions that mount nothing. Thread-safe.
class FakeMounter {
 public:
  Result<std::unique_ptr<rafs::FuseSession>> Start(const rafs::FuseOptions& options);
  void FailWith(std::optional<Error> error);
  /// Unmount() without `lazy` fails as if files were open.
  void SetBusy(bool busy) { busy_ = busy; }
  /// Somebody else unmounts everything.
  void Kill() { alive_ = false; }
  void Revive() { alive_ = true; }
  void SetReadFailure(std::optional<rafs::ReadFailure> failure);
  void SetInflight(std::vector<rafs::InflightRequest> inflight);
  int live_sessions() const { return live_.load(); }
  int started() const { return started_.load(); }

 private:
  class Session;
  std::atomic<bool> busy_{false}, alive_{true};
  std::atomic<int> live_{0}, started_{0};
  mutable Mutex mutex_;
  std::optional<Error> error_ DAVIT_GUARDED_BY(mutex_);
  std::optional<rafs::ReadFailure> read_failure_ DAVIT_GUARDED_BY(mutex_);
  std::vector<rafs::InflightRequest> inflight_ DAVIT_GUARDED_BY(mutex_);
};

/// Keeps to the contract of Service with canned values.
class FakeService final : public daemon::Service {
 public:
  daemon::api::DaemonInfo Info() const override;
  Status SetLogLevel(std::string_view level) override;
  Result<daemon::api::MountInfo> Mount(const daemon::api::MountRequest& request,
                                       Duration wait) override;
  Result<bool> Unmount(const std::string& id, bool force, Duration wait) override;
  Result<daemon::api::MountInfo> Get(const std::string& id) const override;
  std::vector<daemon::api::MountInfo> List() const override { return {mount}; }
  Status Prefetch(const std::string& id, const std::vector<std::string>& paths) override;
  std::vector<daemon::api::Event> Events(std::uint64_t since) const override;
  std::string ConfigJson() const override {
    return config::ToJson(config::DefaultConfig(true, {}));
  }
  std::string MetricsJson() const override;
  std::string MetricsText() const override { return "davit_mounts 1\n"; }
  std::vector<daemon::api::InflightIo> Inflight() const override;
  daemon::api::CacheInfo Cache() const override;
  Result<std::optional<std::uint64_t>> Evict(std::uint64_t bytes, Duration wait) override {
    last_wait = wait;
    if (pending) return std::optional<std::uint64_t>();
    return std::optional<std::uint64_t>(bytes / 2);
  }

  daemon::api::MountInfo mount{.id = "m",
                               .source = "registry/app:v1",
                               .mountpoint = "/mnt/m",
                               .data_path = "fuse",
                               .manifest_digest = "sha256:aa",
                               .platform = "linux/amd64",
                               .state = "mounted"};
  std::optional<Error> error;  // of Mount and Unmount
  bool pending = false;        // they are not done yet
  Duration last_wait{};
  bool last_force = false;
  std::string last_level;
};

}  // namespace davit::testing
