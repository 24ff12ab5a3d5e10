#include "fakes.h"

#include "common/metrics/metrics.h"

namespace davit::testing {

using daemon::api::MountInfo;

class FakeImages::FakeImage final : public daemon::Image {
 public:
  FakeImage(FakeImages& owner, std::string digest) : owner_(owner), digest_(std::move(digest)) {
    ++owner_.open_images_;
  }
  ~FakeImage() override { --owner_.open_images_; }
  const std::string& manifest_digest() const override { return digest_; }
  const std::string& platform() const override { return platform_; }
  std::shared_ptr<const rafs::Filesystem> filesystem() const override { return nullptr; }
  storage::BlobProgress progress() const override { return {10, 20, false}; }
  std::optional<Error> ahead_error() const override {
    const MutexLock lock(owner_.mutex_);
    return owner_.ahead_error_;
  }
  Status Fill(storage::FillEnd on_end, storage::FillStart start) override {
    const MutexLock lock(owner_.mutex_);
    if (owner_.ready_error_) return *owner_.ready_error_;
    owner_.last_start_ = start;
    owner_.fills_.push_back(std::move(on_end));
    owner_.changed_.NotifyAll();
    return {};
  }
  Status FetchListed(const Context& ctx) override {
    DAVIT_TRY(owner_.Wait(ctx, Gate::kListed));
    DAVIT_TRY(ctx.Check("fetch what is listed"));
    const MutexLock lock(owner_.mutex_);
    if (owner_.ready_error_) return *owner_.ready_error_;
    return {};
  }
  Status Prefetch(const std::vector<std::string>& paths) override {
    if (!paths.empty() && paths[0] == "/missing") return Error(Code::kNotFound, "no /missing");
    ++owner_.prefetches_;
    return {};
  }

 private:
  FakeImages& owner_;
  const std::string digest_;
  const std::string platform_ = "linux/amd64";
};

Status FakeImages::Wait(const Context& ctx, Gate gate) {
  const MutexLock lock(mutex_);
  while (IsBlocked(gate)) {
    if (!changed_.Wait(mutex_, ctx)) DAVIT_TRY(ctx.Check("open image"));
  }
  return {};
}

Result<std::shared_ptr<daemon::Image>> FakeImages::Open(const Context& ctx,
                                                        const daemon::ImageRequest& request) {
  {
    const MutexLock lock(mutex_);
    requests_.push_back(request);
    changed_.NotifyAll();
  }
  DAVIT_TRY(Wait(ctx, Gate::kOpen));
  const MutexLock lock(mutex_);
  if (error_) return *error_;
  return std::make_shared<FakeImage>(
      *this, request.pinned_digest.empty() ? digest_ : request.pinned_digest);
}

void FakeImages::Prune(const std::set<std::string>& needed) {
  const MutexLock lock(mutex_);
  needed_ = needed;
}
void FakeImages::Block() {
  const MutexLock lock(mutex_);
  blocked_ = true;
}
void FakeImages::Release() {
  const MutexLock lock(mutex_);
  blocked_ = false;
  changed_.NotifyAll();
}
void FakeImages::BlockListed(bool block) {
  const MutexLock lock(mutex_);
  listed_blocked_ = block;
  changed_.NotifyAll();
}
void FakeImages::FailWith(std::optional<Error> error) {
  const MutexLock lock(mutex_);
  error_ = std::move(error);
}
void FakeImages::FailReadyWith(std::optional<Error> error) {
  const MutexLock lock(mutex_);
  ready_error_ = std::move(error);
}
void FakeImages::SetAheadError(std::optional<Error> error) {
  const MutexLock lock(mutex_);
  ahead_error_ = std::move(error);
}
void FakeImages::SetDigest(std::string digest) {
  const MutexLock lock(mutex_);
  digest_ = std::move(digest);
}
bool FakeImages::AwaitFill() {
  const MutexLock lock(mutex_);
  const Context ctx = Context{}.WithTimeout(std::chrono::seconds(10));
  while (fills_.empty()) {
    if (!changed_.Wait(mutex_, ctx)) return false;
  }
  return true;
}
void FakeImages::EndFills(const Status& status) {
  std::vector<storage::FillEnd> fills;
  AwaitFill();
  {
    const MutexLock lock(mutex_);
    fills.swap(fills_);
  }
  for (const auto& end : fills) end(status);
}
std::vector<daemon::ImageRequest> FakeImages::requests() const {
  const MutexLock lock(mutex_);
  return requests_;
}
std::set<std::string> FakeImages::last_needed() const {
  const MutexLock lock(mutex_);
  return needed_;
}

class FakeMounter::Session final : public rafs::FuseSession {
 public:
  explicit Session(FakeMounter& owner) : owner_(owner) { ++owner_.live_; }
  ~Session() override { --owner_.live_; }
  Status Unmount(bool lazy) override {
    if (owner_.busy_ && !lazy) return Error(Code::kFailedPrecondition, "files are open", EBUSY);
    return {};
  }
  bool alive() const override { return owner_.alive_; }
  std::vector<rafs::InflightRequest> Inflight() const override {
    const MutexLock lock(owner_.mutex_);
    return owner_.inflight_;
  }
  rafs::FuseStats stats() const override { return {.reads = 10, .errors = 1, .waited_reads = 3}; }
  std::optional<rafs::ReadFailure> LastReadFailure() const override {
    const MutexLock lock(owner_.mutex_);
    return owner_.read_failure_;
  }

 private:
  FakeMounter& owner_;
};

Result<std::unique_ptr<rafs::FuseSession>> FakeMounter::Start(const rafs::FuseOptions&) {
  {
    const MutexLock lock(mutex_);
    if (error_) return *error_;
  }
  ++started_;
  return std::unique_ptr<rafs::FuseSession>(std::make_unique<Session>(*this));
}
void FakeMounter::FailWith(std::optional<Error> error) {
  const MutexLock lock(mutex_);
  error_ = std::move(error);
}
void FakeMounter::SetReadFailure(std::optional<rafs::ReadFailure> failure) {
  const MutexLock lock(mutex_);
  read_failure_ = std::move(failure);
}
void FakeMounter::SetInflight(std::vector<rafs::InflightRequest> inflight) {
  const MutexLock lock(mutex_);
  inflight_ = std::move(inflight);
}

daemon::api::DaemonInfo FakeService::Info() const {
  return {.version = "1", .state = "running", .pid = 7, .mounts = 1, .log_level = "info"};
}
Status FakeService::SetLogLevel(std::string_view level) {
  if (level == "loud") return Error(Code::kInvalidArgument, "\"loud\" is no level");
  last_level = level;
  return {};
}
Result<MountInfo> FakeService::Mount(const daemon::api::MountRequest&, Duration wait) {
  last_wait = wait;
  if (error) return *error;
  MountInfo info = mount;
  if (pending) info.state = "mounting";
  return info;
}
Result<bool> FakeService::Unmount(const std::string&, bool force, Duration wait) {
  last_wait = wait;
  last_force = force;
  if (error) return *error;
  return !pending;
}
Result<MountInfo> FakeService::Get(const std::string& id) const {
  if (id != mount.id) return Error(Code::kNotFound, "there is no mount " + id);
  return mount;
}
Status FakeService::Prefetch(const std::string& id, const std::vector<std::string>&) {
  return Get(id).ok() ? Status() : Status(Error(Code::kNotFound, "there is no mount " + id));
}
std::vector<daemon::api::Event> FakeService::Events(std::uint64_t since) const {
  std::vector<daemon::api::Event> out;
  for (std::uint64_t n = since + 1; n <= 3; ++n) out.push_back({n, 1, "mounted", "m", "text"});
  return out;
}
std::string FakeService::MetricsJson() const {
  const auto registry = metrics::Registry::Create();
  registry->AddCounter("davit_x_total", "Things").Add();
  registry->AddHistogram("davit_y_seconds", "Time", {1}).Observe(0.5);
  return registry->Json();
}
std::vector<daemon::api::InflightIo> FakeService::Inflight() const {
  return {{.mount = "m", .operation = "read", .inode = 5, .age_ms = 30'000, .hung = true}};
}
daemon::api::CacheInfo FakeService::Cache() const {
  daemon::api::CacheInfo info;
  info.directory = "/c";
  info.blobs.push_back({.id = std::string(64, 'a'), .bytes_total = 5});
  return info;
}

}  // namespace davit::testing
