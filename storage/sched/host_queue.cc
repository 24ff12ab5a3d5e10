#include "storage/sched/host_queue.h"

#include <algorithm>

namespace davit::storage {
namespace {
bool IsBackground(Cause cause) { return cause == Cause::kPrefetch || cause == Cause::kBackfill; }
}  // namespace

void HostQueue::Enqueue(Ticket& ticket) {
  ticket.granted = false;
  waiting_[static_cast<std::size_t>(ticket.cause)].push_back(&ticket);
}

void HostQueue::Leave(Ticket& ticket) {
  std::erase(waiting_[static_cast<std::size_t>(ticket.cause)], &ticket);
}

void HostQueue::Promote(Ticket& ticket) {
  Leave(ticket);
  ticket.cause = Cause::kDemand;
  Enqueue(ticket);
}

bool HostQueue::Grant(Ticket& ticket, bool probe) {
  const bool background = IsBackground(ticket.cause);
  // A quarter of the slots is kept for readers that wait, however much is read ahead of others.
  const int most = options_.max_requests_per_host;
  const int limit = ticket.cause == Cause::kDemand ? most : std::max(1, most - most / 4);
  if (running_ >= limit) return false;
  if (background && running_background_ >= options_.max_background_requests) return false;
  ++running_;
  if (background) ++running_background_;
  ticket.granted = true;
  ticket.background_slot = background;
  ticket.probe = probe;
  if (probe) probing_ = true;
  ticket.wake.Wake();
  return true;
}

void HostQueue::Dispatch(TimePoint now) {
  if (now < blocked_until_) return;
  if (broken() && (probing_ || now < next_probe_)) return;
  for (std::list<Ticket*>& queue : waiting_) {
    while (!queue.empty()) {
      if (!Grant(*queue.front(), broken())) break;
      queue.pop_front();
      if (probing_) return;
    }
  }
}

void HostQueue::Release(Ticket& ticket, TimePoint now, const Error* failed) {
  --running_;
  if (ticket.background_slot) --running_background_;
  const bool probe = ticket.probe;
  if (probe) probing_ = false;
  ticket.granted = ticket.background_slot = ticket.probe = false;
  if (failed == nullptr) {
    failures_ = failed_probes_ = 0;
  } else {
    ++failures_;
    last_error_ = *failed;
    // Those that ran when the host broke fail all at once. That is one failure; only probes tell
    // how long it lasts.
    if (probe) ++failed_probes_;
    if (broken() && (probe || !probing_)) {
      const int doublings = std::min(failed_probes_, 16);
      next_probe_ =
          now + std::min<Duration>(options_.backoff_min * (1 << doublings), options_.backoff_max);
    }
  }
  // While it was tested, the others waited for nothing else; the next test may be theirs.
  if (probe && broken()) WakeAll();
  Dispatch(now);
}

void HostQueue::WakeAll() {
  for (const std::list<Ticket*>& queue : waiting_) {
    for (Ticket* ticket : queue) ticket->wake.Wake();
  }
}

void HostQueue::OnProgress(Ticket& ticket, TimePoint now) {
  last_progress_ = now;
  if (failures_ == 0 && !ticket.probe) return;
  failures_ = failed_probes_ = 0;
  if (ticket.probe) {
    ticket.probe = false;
    probing_ = false;
  }
  Dispatch(now);
}

void HostQueue::Block(TimePoint until) { blocked_until_ = std::max(blocked_until_, until); }

std::optional<TimePoint> HostQueue::NextChance(TimePoint now) const {
  TimePoint at{};
  if (now < blocked_until_) at = blocked_until_;
  if (broken() && !probing_ && now < next_probe_) at = std::max(at, next_probe_);
  if (at == TimePoint{}) return std::nullopt;
  return at;
}

}  // namespace davit::storage
