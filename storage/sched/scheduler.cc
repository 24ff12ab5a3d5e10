#include "storage/sched/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <random>
#include <utility>
#include <vector>

#include "common/base/sync.h"
#include "storage/sched/host_queue.h"
#include "storage/sched/token_bucket.h"
#include "storage/sched/wake.h"

namespace davit::storage {
namespace {

bool Retryable(const Error& error) {
  return error.code() == Code::kUnavailable || error.code() == Code::kDeadlineExceeded;
}

double Seconds(Duration duration) { return std::chrono::duration<double>(duration).count(); }

// One Fetch(): what it has got and for how long it has got nothing.
struct Transfer {
  const Context& ctx;
  BlobSource& source;
  ByteRange range;
  const std::stop_token& hurry;
  HostQueue& host;
  Cause cause;
  Ticket ticket{};
  std::uint64_t delivered = 0;
  int tries = 0;
  int failures_in_a_row = 0;
  TimePoint started{};
  TimePoint idle_since{};
  std::optional<TimePoint> hurried_at{};
  Duration yielded{};
  bool counted_as_demand = false;
  bool holds_link = false;  // background work stands still for it
  std::optional<Error> last_error{};
  std::optional<Error> own_end{};  // the sink's or the caller's reason to stop

  // What ends a wait early. Once it has been heard, the token would end every wait at once.
  std::stop_token hurry_signal() const {
    return hurried_at || cause == Cause::kDemand ? std::stop_token{} : hurry;
  }
};

class SchedulerImpl final : public Scheduler {
 public:
  SchedulerImpl(const Options& options, Clock& clock)
      : options_(options), clock_(clock), bucket_(options.background_bytes_per_second) {}

  Status Fetch(const Context& ctx, BlobSource& source, ByteRange range, SourceRead& how,
               const ByteSink& sink, std::stop_token hurry) override;
  Stats stats() const override;
  void SetBackgroundLimit(std::uint64_t bytes_per_second) override;

 private:
  Status Run(Transfer& t, SourceRead& how, const ByteSink& sink);
  Status AcquireSlot(Transfer& t);
  Status OnPiece(Transfer& t, Bytes piece, const ByteSink& sink);
  void YieldAndThrottle(Transfer& t, std::size_t bytes) DAVIT_REQUIRES(mutex_);
  Status AfterFailure(Transfer& t, const Error& error);
  Status CheckCaller(const Transfer& t) const;
  void CheckHurry(Transfer& t) DAVIT_REQUIRES(mutex_);
  void CountAsDemand(Transfer& t) DAVIT_REQUIRES(mutex_);
  void HoldLink(Transfer& t) DAVIT_REQUIRES(mutex_);
  void ReleaseLink(Transfer& t) DAVIT_REQUIRES(mutex_);
  Duration Patience(const Transfer& t) const;
  Error GiveUp(const Transfer& t, TimePoint now) DAVIT_REQUIRES(mutex_);
  Duration BackOff(int failures) DAVIT_REQUIRES(mutex_);
  HostQueue& HostOf(const BlobSource& source) DAVIT_REQUIRES(mutex_);

  const Options options_;
  Clock& clock_;
  mutable Mutex mutex_;
  std::map<std::string, std::unique_ptr<HostQueue>> hosts_ DAVIT_GUARDED_BY(mutex_);
  TokenBucket bucket_ DAVIT_GUARDED_BY(mutex_);
  std::vector<Transfer*> paused_ DAVIT_GUARDED_BY(mutex_);  // yielding or throttled
  int link_holders_ DAVIT_GUARDED_BY(mutex_) = 0;           // waiting or running, all hosts
  Stats stats_ DAVIT_GUARDED_BY(mutex_);
  std::minstd_rand random_ DAVIT_GUARDED_BY(mutex_){std::random_device{}()};
};

HostQueue& SchedulerImpl::HostOf(const BlobSource& source) {
  std::unique_ptr<HostQueue>& host = hosts_[source.Host()];
  if (!host) host = std::make_unique<HostQueue>(options_);
  return *host;
}

Status SchedulerImpl::CheckCaller(const Transfer& t) const {
  if (t.ctx.stop.stop_requested()) {
    return Error(Code::kCancelled, fmt::format("read {}: the caller gave up", t.source.Describe()));
  }
  if (t.ctx.deadline && clock_.Now() >= *t.ctx.deadline) {
    std::string why = t.last_error ? ": " + t.last_error->message() : "";
    return Error(Code::kDeadlineExceeded, fmt::format("read {}: out of time after {} tries{}",
                                                      t.source.Describe(), t.tries, why));
  }
  return {};
}

void SchedulerImpl::CountAsDemand(Transfer& t) {
  t.counted_as_demand = true;
  HoldLink(t);
}

void SchedulerImpl::HoldLink(Transfer& t) {
  if (!std::exchange(t.holds_link, true)) ++link_holders_;
}

void SchedulerImpl::ReleaseLink(Transfer& t) {
  if (!std::exchange(t.holds_link, false) || --link_holders_ != 0) return;
  for (Transfer* paused : paused_) paused->ticket.wake.Wake();
}

void SchedulerImpl::CheckHurry(Transfer& t) {
  if (t.hurried_at || t.cause == Cause::kDemand || !t.hurry.stop_requested()) return;
  t.hurried_at = clock_.Now();
  CountAsDemand(t);
}

Duration SchedulerImpl::Patience(const Transfer& t) const {
  const bool demand = t.cause == Cause::kDemand || t.hurried_at;
  return demand ? options_.demand_patience : options_.background_patience;
}

Duration SchedulerImpl::BackOff(int failures) {
  const int doublings = std::clamp(failures - 1, 0, 16);
  const Duration full =
      std::min<Duration>(options_.backoff_min * (1 << doublings), options_.backoff_max);
  std::uniform_real_distribution<double> jitter(0.5, 1.0);
  return std::chrono::duration_cast<Duration>(full * jitter(random_));
}

Error SchedulerImpl::GiveUp(const Transfer& t, TimePoint now) {
  ++stats_.failures;
  const std::optional<Error>& last = t.last_error ? t.last_error : t.host.last_error();
  const Code code = last ? last->code() : Code::kDeadlineExceeded;
  const std::string why = last ? last->message() : "the host takes no more requests";
  return Error(code, fmt::format("read {}: gave up after {} tries in {:.1f} s: {}",
                                 t.source.Describe(), t.tries, Seconds(now - t.started), why))
      .WithHint(last && !last->hint().empty()
                    ? last->hint()
                    : "check that the registry can be reached from this node");
}

Status SchedulerImpl::AcquireSlot(Transfer& t) {
  MutexLock lock(mutex_);
  CheckHurry(t);
  t.ticket.cause = t.counted_as_demand ? Cause::kDemand : t.cause;
  t.host.Enqueue(t.ticket);
  t.host.Dispatch(clock_.Now());
  const TimePoint queued_at = clock_.Now();
  ++stats_.waiting;
  Status status;
  while (!t.ticket.granted) {
    if (status = CheckCaller(t); !status.ok()) break;
    CheckHurry(t);
    if (t.counted_as_demand && t.ticket.cause != Cause::kDemand) {
      t.host.Promote(t.ticket);
      t.host.Dispatch(clock_.Now());
      continue;
    }
    const TimePoint now = clock_.Now();
    TimePoint quiet_since = std::max(t.idle_since, t.host.last_progress());
    if (t.hurried_at) quiet_since = std::max(quiet_since, *t.hurried_at);
    TimePoint until = quiet_since + Patience(t);
    if (now >= until) {
      status = GiveUp(t, now);
      break;
    }
    if (const auto chance = t.host.NextChance(now)) until = std::min(until, *chance);
    if (t.ctx.deadline) until = std::min(until, *t.ctx.deadline);
    t.ticket.wake.Wait(mutex_, clock_, t.ctx.stop, t.hurry_signal(), until);
    if (!t.ticket.granted) t.host.Dispatch(clock_.Now());
  }
  --stats_.waiting;
  if (!t.ticket.granted) {
    t.host.Leave(t.ticket);
    return status;
  }
  // Others were served while this one waited: no sign of a broken host.
  if (t.host.last_progress() > queued_at) t.idle_since += clock_.Now() - queued_at;
  ++stats_.running;
  ++stats_.requests[static_cast<std::size_t>(t.cause)];
  return {};
}

void SchedulerImpl::YieldAndThrottle(Transfer& t, std::size_t bytes) {
  const bool yields = t.cause == Cause::kPrefetch || t.cause == Cause::kBackfill;
  CheckHurry(t);
  if (!yields || t.counted_as_demand) return;
  bucket_.Take(bytes, clock_.Now());
  paused_.push_back(&t);
  while (!t.counted_as_demand && !t.ctx.stop.stop_requested()) {
    const TimePoint now = clock_.Now();
    if (t.ctx.deadline && now >= *t.ctx.deadline) break;
    const bool yielding = link_holders_ > 0 && t.yielded < options_.max_yield;
    TimePoint until = bucket_.ReadyAt(now);
    if (yielding) until = now + (options_.max_yield - t.yielded);
    if (until <= now) break;
    if (t.ctx.deadline) until = std::min(until, *t.ctx.deadline);
    t.ticket.wake.Wait(mutex_, clock_, t.ctx.stop, t.hurry, until);
    if (yielding) t.yielded += clock_.Now() - now;
    CheckHurry(t);
  }
  std::erase(paused_, &t);
}

Status SchedulerImpl::OnPiece(Transfer& t, Bytes piece, const ByteSink& sink) {
  if (piece.size() > t.range.length - t.delivered) {
    return Error(Code::kInternal,
                 fmt::format("read {}: more bytes than were asked for", t.source.Describe()));
  }
  {
    MutexLock lock(mutex_);
    t.host.OnProgress(t.ticket, clock_.Now());
    stats_.bytes[static_cast<std::size_t>(t.cause)] += piece.size();
    YieldAndThrottle(t, piece.size());
  }
  Status status = CheckCaller(t);
  if (status.ok()) status = sink(piece);
  if (!status.ok()) {
    t.own_end = status.error();
    return status;
  }
  t.delivered += piece.size();
  t.failures_in_a_row = 0;
  t.idle_since = clock_.Now();
  return {};
}

// Decides whether to go on after a failed try, and waits before the next one.
Status SchedulerImpl::AfterFailure(Transfer& t, const Error& error) {
  MutexLock lock(mutex_);
  ++t.failures_in_a_row;
  ++stats_.retries;
  t.last_error = error;
  const TimePoint start = clock_.Now();
  const TimePoint resume = start + BackOff(t.failures_in_a_row);
  while (true) {
    DAVIT_TRY(CheckCaller(t));
    CheckHurry(t);
    const TimePoint now = clock_.Now();
    TimePoint quiet_since = t.idle_since;
    if (t.hurried_at) quiet_since = std::max(quiet_since, *t.hurried_at);
    const TimePoint end = quiet_since + Patience(t);
    if (now >= end) return GiveUp(t, now);
    if (now >= resume) return {};
    TimePoint until = std::min(resume, end);
    if (t.ctx.deadline) until = std::min(until, *t.ctx.deadline);
    t.ticket.wake.Wait(mutex_, clock_, t.ctx.stop, t.hurry_signal(), until);
  }
}

Status SchedulerImpl::Run(Transfer& t, SourceRead& how, const ByteSink& sink) {
  while (true) {
    DAVIT_TRY(CheckCaller(t));
    DAVIT_TRY(AcquireSlot(t));
    ++t.tries;
    const ByteRange rest{t.range.offset + t.delivered, t.range.length - t.delivered};
    Status status =
        t.source.Read(t.ctx, rest, how, [&](Bytes piece) { return OnPiece(t, piece, sink); });
    if (status.ok() && t.delivered != t.range.length) {
      status =
          Error(Code::kUnavailable, fmt::format("read {}: the reply ended {} bytes early",
                                                t.source.Describe(), t.range.length - t.delivered));
    }
    const bool blame =
        !status.ok() && !t.own_end && Retryable(status.error()) && CheckCaller(t).ok();
    {
      MutexLock lock(mutex_);
      --stats_.running;
      const TimePoint now = clock_.Now();
      if (blame && status.error().retry_after()) {
        ++stats_.throttled;
        t.host.Block(now + std::min(*status.error().retry_after(), kMaxRetryAfter));
      }
      t.host.Release(t.ticket, now, blame ? &status.error() : nullptr);
    }
    if (t.own_end) return *t.own_end;
    if (status.ok() || t.delivered == t.range.length) return {};
    DAVIT_TRY(CheckCaller(t));
    if (!blame) return std::move(status).error().WithContext("read " + t.source.Describe());
    DAVIT_TRY(AfterFailure(t, status.error()));
  }
}

Status SchedulerImpl::Fetch(const Context& ctx, BlobSource& source, ByteRange range,
                            SourceRead& how, const ByteSink& sink, std::stop_token hurry) {
  if (range.length == 0) return {};
  HostQueue* host = nullptr;
  {
    MutexLock lock(mutex_);
    host = &HostOf(source);
  }
  Transfer t{.ctx = ctx,
             .source = source,
             .range = range,
             .hurry = hurry,
             .host = *host,
             .cause = ctx.cause};
  t.started = t.idle_since = clock_.Now();
  if (t.cause <= Cause::kReadAhead) {
    MutexLock lock(mutex_);
    if (t.cause == Cause::kDemand) CountAsDemand(t);
    HoldLink(t);
  }
  Status status = Run(t, how, sink);
  MutexLock lock(mutex_);
  ReleaseLink(t);
  return status;
}

Scheduler::Stats SchedulerImpl::stats() const {
  MutexLock lock(mutex_);
  return stats_;
}

void SchedulerImpl::SetBackgroundLimit(std::uint64_t bytes_per_second) {
  MutexLock lock(mutex_);
  bucket_.SetRate(bytes_per_second, clock_.Now());
  for (Transfer* paused : paused_) paused->ticket.wake.Wake();
}

}  // namespace

std::unique_ptr<Scheduler> Scheduler::Create(const Options& options, Clock& clock) {
  return std::make_unique<SchedulerImpl>(options, clock);
}

}  // namespace davit::storage
