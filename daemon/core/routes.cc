#include "daemon/core/routes.h"

#include <fmt/format.h>

#include <charconv>
#include <functional>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/request_id.h"
#include "common/json/json.h"
#include "daemon/api/types.h"

namespace davit::daemon {
namespace {

struct Call {
  Service& service;
  WaitSlots& slots;
  const RouteOptions& options;
  const http::ServerRequest& request;
  std::string id;  // what stands for {id}
};

http::Response Json(std::string body, int status = 200) {
  return {status, {{"Content-Type", "application/json"}}, std::move(body)};
}

http::Response Reply(const Error& error) {
  http::Response out =
      Json(api::ToJson(error, log::ScopeValue("request")), api::HttpStatusOf(error.code()));
  if (error.retry_after()) {
    out.headers.Set("Retry-After", std::to_string(error.retry_after()->count()));
  }
  return out;
}

Error Bad(std::string message) { return Error(Code::kInvalidArgument, std::move(message)); }

Result<std::uint64_t> ParseUint(std::string_view text, std::string_view what) {
  std::uint64_t value = 0;
  const auto [end, ec] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (ec != std::errc{} || end != text.data() + text.size()) {
    return Bad(fmt::format("{} must be a number", what));
  }
  return value;
}

// Holds one of the slots; without one the request does not wait.
class Waiting {
 public:
  explicit Waiting(const Call& call)
      : slots_(call.slots), taken_(slots_.Take()), wait_(taken_ ? call.options.wait : Duration{}) {}
  ~Waiting() {
    if (taken_) slots_.Return();
  }
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;
  Duration wait() const { return wait_; }

 private:
  WaitSlots& slots_;
  const bool taken_;
  const Duration wait_;
};

http::Response GetDaemon(const Call& call) { return Json(api::ToJson(call.service.Info())); }

http::Response PutDaemon(const Call& call) {
  auto body = json::Parse(call.request.body, "request body", 1U << 16);
  if (!body) return Reply(body.error());
  const auto level = json::NeedString(*body, "log_level");
  if (!level) return Reply(level.error());
  if (const Status set = call.service.SetLogLevel(*level); !set) return Reply(set.error());
  return Json(api::ToJson(call.service.Info()));
}

http::Response ListMounts(const Call& call) { return Json(api::ToJson(call.service.List())); }

http::Response PostMount(const Call& call) {
  const auto request = api::MountRequest::FromJson(call.request.body);
  if (!request) return Reply(request.error());
  std::vector<log::Field> fields{{"mount", request->id}, {"image", request->source}};
  if (!request->volume.empty()) fields.emplace_back("volume", request->volume);
  const log::Scope scope(fields);
  const Waiting waiting(call);
  const auto info = call.service.Mount(*request, waiting.wait());
  if (!info) return Reply(info.error());
  return Json(api::ToJson(*info), info->state == "mounting" ? 202 : 200);
}

http::Response GetMount(const Call& call) {
  const auto info = call.service.Get(call.id);
  return info ? Json(api::ToJson(*info)) : Reply(info.error());
}

http::Response DeleteMount(const Call& call) {
  const auto force = call.request.Query("force");
  if (force && *force != "true" && *force != "false") {
    return Reply(Bad("force must be true or false"));
  }
  const log::Scope scope({{"mount", call.id}});
  const Waiting waiting(call);
  const auto gone = call.service.Unmount(call.id, force == "true", waiting.wait());
  if (!gone) return Reply(gone.error());
  return Json(*gone ? R"({"state":"unmounted"})" : R"({"state":"unmounting"})", *gone ? 200 : 202);
}

http::Response PostPrefetch(const Call& call) {
  const auto request = api::PrefetchRequest::FromJson(call.request.body);
  if (!request) return Reply(request.error());
  const Status status = call.service.Prefetch(call.id, request->paths);
  return status ? Json(R"({"state":"started"})", 202) : Reply(status.error());
}

http::Response GetEvents(const Call& call) {
  std::uint64_t since = 0;
  if (const auto text = call.request.Query("since")) {
    const auto parsed = ParseUint(*text, "since");
    if (!parsed) return Reply(parsed.error());
    since = *parsed;
  }
  return Json(api::ToJson(call.service.Events(since)));
}

http::Response GetConfig(const Call& call) { return Json(call.service.ConfigJson()); }
http::Response GetMetrics(const Call& call) { return Json(call.service.MetricsJson()); }
http::Response GetInflight(const Call& call) { return Json(api::ToJson(call.service.Inflight())); }

http::Response GetMetricsText(const Call& call) {
  return {200,
          {{"Content-Type", "text/plain; version=0.0.4; charset=utf-8"}},
          call.service.MetricsText()};
}

http::Response GetCache(const Call& call) { return Json(api::ToJson(call.service.Cache())); }

http::Response PostEvict(const Call& call) {
  auto body = json::Parse(call.request.body, "request body", 1U << 16);
  if (!body) return Reply(body.error());
  const auto bytes = json::NeedUint(*body, "bytes");
  if (!bytes) return Reply(bytes.error());
  const Waiting waiting(call);
  const auto freed = call.service.Evict(*bytes, waiting.wait());
  if (!freed) return Reply(freed.error());
  if (!*freed) return Json(R"({"state":"evicting"})", 202);
  return Json(fmt::format(R"({{"state":"evicted","freed_bytes":{}}})", **freed));
}

http::Response GetHealth(const Call& call) {
  const std::string state = call.service.Info().state;
  return Json(fmt::format(R"({{"state":"{}"}})", state), state == "running" ? 200 : 503);
}

struct RouteEntry {
  std::string_view method, path;
  http::Response (*run)(const Call&);
};
constexpr RouteEntry kRoutes[] = {
    {"GET", "/api/v1/daemon", GetDaemon},
    {"PUT", "/api/v1/daemon", PutDaemon},
    {"GET", "/api/v1/mounts", ListMounts},
    {"POST", "/api/v1/mounts", PostMount},
    {"GET", "/api/v1/mounts/{id}", GetMount},
    {"DELETE", "/api/v1/mounts/{id}", DeleteMount},
    {"POST", "/api/v1/mounts/{id}/prefetch", PostPrefetch},
    {"GET", "/api/v1/events", GetEvents},
    {"GET", "/api/v1/config", GetConfig},
    {"GET", "/api/v1/metrics", GetMetrics},
    {"GET", "/api/v1/metrics/inflight", GetInflight},
    {"GET", "/api/v1/cache", GetCache},
    {"POST", "/api/v1/cache/evict", PostEvict},
    {"GET", "/metrics", GetMetricsText},
    {"GET", "/healthz", GetHealth},
};

// What stands for {id} when the path fits the pattern; an empty text when there is no {id}.
std::optional<std::string> Match(std::string_view pattern, std::string_view path) {
  constexpr std::string_view kId = "{id}";
  const std::size_t at = pattern.find(kId);
  if (at == std::string_view::npos) {
    return pattern == path ? std::optional<std::string>("") : std::nullopt;
  }
  const std::string_view tail = pattern.substr(at + kId.size());
  if (!path.starts_with(pattern.substr(0, at)) || path.size() < at + tail.size()) {
    return std::nullopt;
  }
  if (!path.ends_with(tail)) return std::nullopt;
  const std::string_view id = path.substr(at, path.size() - at - tail.size());
  if (id.empty() || id.find('/') != std::string_view::npos) return std::nullopt;
  return std::string(id);
}

http::Response Dispatch(Service& service, WaitSlots& slots, const RouteOptions& options,
                        const http::ServerRequest& request) {
  std::string allowed;
  for (const RouteEntry& route : kRoutes) {
    const auto id = Match(route.path, request.path);
    if (!id) continue;
    if (route.method != request.method) {
      allowed += (allowed.empty() ? "" : ", ") + std::string(route.method);
      continue;
    }
    if (!id->empty()) {
      if (const Status good = api::CheckMountId(*id); !good) return Reply(good.error());
    }
    return route.run({service, slots, options, request, *id});
  }
  if (!allowed.empty()) {
    http::Response out = Reply(Error(Code::kUnsupported, fmt::format("{} is not possible for {}",
                                                                     request.method, request.path))
                                   .WithHint("possible: " + allowed));
    out.status = 405;
    out.headers.Set("Allow", allowed);
    return out;
  }
  return Reply(Error(Code::kNotFound, fmt::format("there is no {}", request.path))
                   .WithHint("docs/openapi.yaml lists the paths"));
}

}  // namespace

bool WaitSlots::Take() {
  int seen = free_.load(std::memory_order_relaxed);
  while (seen > 0) {
    if (free_.compare_exchange_weak(seen, seen - 1, std::memory_order_relaxed)) return true;
  }
  return false;
}

void WaitSlots::Return() { free_.fetch_add(1, std::memory_order_relaxed); }

std::vector<Route> Routes() {
  std::vector<Route> out;
  for (const RouteEntry& route : kRoutes) out.push_back({route.method, route.path});
  return out;
}

http::Response Handle(Service& service, WaitSlots& slots, const RouteOptions& options,
                      const http::ServerRequest& request) {
  const std::string id = RequestIdOf(request.headers.Get(kRequestIdHeader).value_or(""));
  const log::Scope scope({{"request", id}});
  const TimePoint began = Clock::Real().Now();
  http::Response out = Dispatch(service, slots, options, request);
  out.headers.Set(kRequestIdHeader, id);
  const auto took =
      std::chrono::duration_cast<std::chrono::milliseconds>(Clock::Real().Now() - began);
  log::Debug("API call", {{"method", request.method},
                          {"path", request.path},
                          {"status", out.status},
                          {"ms", took.count()}});
  return out;
}

}  // namespace davit::daemon
