#include "storage/registry/health.h"

#include <algorithm>
#include <charconv>

#include "common/base/log.h"
#include "storage/registry/errors.h"

namespace davit::registry {
namespace {

constexpr std::chrono::seconds kFirstSkip{10};
constexpr std::chrono::seconds kLongestSkip{300};
constexpr std::uint64_t kFewRequests = 10;

/// The number at the start of "76;w=21600".
std::optional<std::uint64_t> LeadingNumber(std::string_view text) {
  std::uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end == text.data()) return std::nullopt;
  return value;
}

}  // namespace

bool EndpointHealth::Usable(const std::string& origin) {
  MutexLock lock(mutex_);
  const auto it = states_.find(origin);
  if (it == states_.end()) return true;
  const TimePoint now = clock_.Now();
  return now >= it->second.skip_until && now >= it->second.pause_until;
}

std::optional<std::chrono::seconds> EndpointHealth::Paused(const std::string& origin) {
  MutexLock lock(mutex_);
  const auto it = states_.find(origin);
  if (it == states_.end()) return std::nullopt;
  const TimePoint now = clock_.Now();
  if (now >= it->second.pause_until) return std::nullopt;
  return std::chrono::ceil<std::chrono::seconds>(it->second.pause_until - now);
}

void EndpointHealth::Succeeded(const std::string& origin) {
  MutexLock lock(mutex_);
  State& state = states_[origin];
  if (state.failures > 0) log::Info("an endpoint works again", {{"endpoint", origin}});
  state.failures = 0;
  state.skip_until = {};
}

void EndpointHealth::Failed(const std::string& origin, const Error& error) {
  MutexLock lock(mutex_);
  State& state = states_[origin];
  // It was asked although it is skipped, because all others had failed too: that says nothing new.
  if (clock_.Now() < state.skip_until) return;
  const std::chrono::seconds skip =
      std::min(kLongestSkip, kFirstSkip * (1 << std::min(state.failures, 5)));
  state.failures = std::min(state.failures + 1, 1000);
  state.skip_until = clock_.Now() + skip;
  log::Warn("an endpoint failed and is skipped for a while",
            {{"endpoint", origin}, {"seconds", skip.count()}, {"error", error}});
}

void EndpointHealth::Saw(const std::string& origin, const http::Response& reply) {
  MutexLock lock(mutex_);
  if (reply.status == 429 || reply.status == 503) {
    if (const auto wait = RetryAfterOf(reply, clock_.WallNow())) {
      State& state = states_[origin];
      state.pause_until = std::max(state.pause_until, clock_.Now() + *wait);
    }
  }
  if (const auto value = reply.headers.Get("RateLimit-Remaining")) {
    if (const auto left = LeadingNumber(*value)) {
      State& state = states_[origin];
      const bool low = *left < kFewRequests;
      if (low && !state.low_reported) {
        log::Warn("the registry's rate limit is nearly used up",
                  {{"endpoint", origin}, {"requests_left", *left}});
      }
      state.low_reported = low;
    }
  }
  if (const auto value = reply.headers.Get("Warning"); value && value->starts_with("299")) {
    State& state = states_[origin];
    if (!std::exchange(state.warning_reported, true))
      log::Warn("the registry warns", {{"endpoint", origin}, {"text", value->substr(0, 200)}});
  }
}

}  // namespace davit::registry
