#include "daemon/client/client.h"

#include <fmt/format.h>

#include <algorithm>

#include "common/base/clock.h"
#include "common/base/log.h"
#include "common/base/request_id.h"

namespace davit::daemon {
namespace {

using std::chrono::milliseconds;

constexpr milliseconds kPollMin{20};
constexpr milliseconds kPollMax{500};
constexpr std::uint64_t kMaxReply = 64ULL << 20;

class ClientImpl final : public Client {
 public:
  ClientImpl(std::string socket_path, http::Client& http)
      : socket_(std::move(socket_path)), http_(http) {}

  Result<api::DaemonInfo> Info(const Context& ctx) override {
    DAVIT_TRY_ASSIGN(const std::string body, Call(ctx, "GET", "/api/v1/daemon", ""));
    return api::DaemonInfoFromJson(body);
  }

  Result<api::MountInfo> Mount(const Context& ctx, const api::MountRequest& request) override {
    DAVIT_TRY(request.Validate());
    DAVIT_TRY_ASSIGN(const http::Response reply,
                     Send(ctx, "POST", "/api/v1/mounts", request.ToJson()));
    DAVIT_TRY_ASSIGN(api::MountInfo info, api::MountInfoFromJson(reply.body));
    if (reply.status != 202) return info;
    return WaitUntilMounted(ctx, request.id);
  }

  Status Unmount(const Context& ctx, const std::string& id) override {
    DAVIT_TRY(api::CheckMountId(id));
    // 202: it goes on in the daemon; asking again joins it.
    while (true) {
      auto reply = Send(ctx, "DELETE", "/api/v1/mounts/" + id, "");
      if (!reply.ok()) {
        if (reply.error().code() == Code::kNotFound) return {};
        return std::move(reply).error();
      }
      if (reply->status != 202) return {};
      if (!Clock::Real().SleepFor(kPollMax, ctx.stop)) return ctx.Check("unmount " + id);
      DAVIT_TRY(ctx.Check("unmount " + id));
    }
  }

  Result<api::MountInfo> Get(const Context& ctx, const std::string& id) override {
    DAVIT_TRY(api::CheckMountId(id));
    DAVIT_TRY_ASSIGN(const std::string body, Call(ctx, "GET", "/api/v1/mounts/" + id, ""));
    return api::MountInfoFromJson(body);
  }

  Result<std::vector<api::MountInfo>> List(const Context& ctx) override {
    DAVIT_TRY_ASSIGN(const std::string body, Call(ctx, "GET", "/api/v1/mounts", ""));
    return api::MountListFromJson(body);
  }

  Result<std::string> Call(const Context& ctx, const std::string& method,
                           const std::string& path_and_query, const std::string& body) override {
    DAVIT_TRY_ASSIGN(http::Response reply, Send(ctx, method, path_and_query, body));
    return std::move(reply.body);
  }

 private:
  Result<http::Response> Send(const Context& ctx, const std::string& method,
                              const std::string& path_and_query, const std::string& body) {
    http::Request request;
    request.method = method;
    request.url = "http://davitd" + path_and_query;
    request.unix_socket = socket_;
    request.body = body;
    request.max_response_bytes = kMaxReply;
    if (!body.empty()) request.headers.Set("Content-Type", "application/json");
    // Who reads the logs of both sides finds one call by one id.
    if (const std::string id = log::ScopeValue("request"); !id.empty()) {
      request.headers.Set(kRequestIdHeader, id);
    }
    // A mount call may be answered late, see WaitUntilMounted.
    request.stall_timeout = milliseconds(60'000);
    auto reply = http_.Do(ctx, request);
    if (!reply) {
      Error error = std::move(reply).error();
      if (error.code() != Code::kUnavailable) return error;
      return std::move(error)
          .WithContext(fmt::format("davitd at {}", socket_))
          .WithHint("is davitd running? --socket or DAVIT_API_SOCKET name another socket");
    }
    if (reply->status < 200 || reply->status > 299) {
      Error error = api::ErrorFromReply(reply->status, reply->body);
      if (const auto after = reply->headers.Get("Retry-After")) {
        const auto wait = http::ParseRetryAfter(*after, Clock::Real().WallNow());
        if (wait) return std::move(error).WithRetryAfter(*wait);
      }
      return error;
    }
    return reply;
  }

  // The daemon answers 202 when mounting takes longer than it keeps a request waiting.
  Result<api::MountInfo> WaitUntilMounted(const Context& ctx, const std::string& id) {
    milliseconds pause = kPollMin;
    while (true) {
      DAVIT_TRY(ctx.Check("mount " + id));
      DAVIT_TRY_ASSIGN(api::MountInfo info, Get(ctx, id));
      if (info.state == "mounted") return info;
      if (info.state == "failed") {
        return Error(api::CodeFromName(info.error_code).value_or(Code::kInternal), info.error);
      }
      if (!Clock::Real().SleepFor(pause, ctx.stop)) continue;  // Check() says why
      pause = std::min(pause * 2, kPollMax);
    }
  }

  const std::string socket_;
  http::Client& http_;
};

}  // namespace

std::unique_ptr<Client> Client::Create(std::string socket_path, http::Client& http) {
  return std::make_unique<ClientImpl>(std::move(socket_path), http);
}

}  // namespace davit::daemon
