#pragma once
// Who may talk to one host now: slots by priority, Retry-After, circuit breaker.

#include <array>
#include <list>
#include <optional>

#include "common/base/clock.h"
#include "common/base/context.h"
#include "storage/sched/scheduler.h"
#include "storage/sched/wake.h"

namespace davit::storage {

/// One transfer's place in the queue of its host. Lives on the transfer's stack.
struct Ticket {
  Cause cause = Cause::kDemand;  // kDemand once it has been hurried
  bool granted = false;          // has a slot
  bool background_slot = false;  // which kind of slot
  bool probe = false;            // the one request that tests a broken host
  WakeUp wake;
};

/// Not thread-safe: guarded by the scheduler's mutex.
class HostQueue {
 public:
  explicit HostQueue(const Scheduler::Options& options) : options_(options) {}

  void Enqueue(Ticket& ticket);
  /// Leaves the queue without having got a slot.
  void Leave(Ticket& ticket);
  /// Moves a waiting ticket to the end of the demand queue.
  void Promote(Ticket& ticket);
  /// Gives out the slots that are free and wakes their owners.
  void Dispatch(TimePoint now);
  /// Gives the slot back; `failed` with the error when the host did not answer well.
  void Release(Ticket& ticket, TimePoint now, const Error* failed);
  /// Bytes arrived: the host is well.
  void OnProgress(Ticket& ticket, TimePoint now);
  /// Nobody asks this host before `until`.
  void Block(TimePoint until);

  /// When Dispatch() may have something to give without any other event.
  std::optional<TimePoint> NextChance(TimePoint now) const;
  TimePoint last_progress() const { return last_progress_; }
  const std::optional<Error>& last_error() const { return last_error_; }

 private:
  bool broken() const { return failures_ >= options_.breaker_failures; }
  bool Grant(Ticket& ticket, bool probe);
  /// So that the waiting look anew at when there is a chance.
  void WakeAll();

  const Scheduler::Options& options_;
  std::array<std::list<Ticket*>, kCauseCount> waiting_;
  int running_ = 0;
  int running_background_ = 0;
  int failures_ = 0;       // consecutive
  int failed_probes_ = 0;  // consecutive
  bool probing_ = false;
  TimePoint next_probe_{};
  TimePoint blocked_until_{};
  TimePoint last_progress_{};
  std::optional<Error> last_error_;
};

}  // namespace davit::storage
