#pragma once
// An http::Client without a network: a function answers, every request is kept. It serves https
// URLs of any host, so that steps between hosts and schemes can be tried.

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "common/base/clock.h"
#include "common/http/client.h"
#include "storage/registry/client.h"

namespace davit::testing {

class FakeNetwork final : public http::Client {
 public:
  using Handler = std::function<Result<http::Response>(const http::Request&)>;
  explicit FakeNetwork(Handler handler) : handler_(std::move(handler)) {}

  Result<http::Response> Do(const Context&, const http::Request& request) override {
    requests.push_back(request);
    return handler_(request);
  }
  Result<http::Response> Stream(const Context& ctx, const http::Request& request,
                                const OnHeaders& on_headers, const OnData& on_data) override {
    DAVIT_TRY_ASSIGN(http::Response reply, Do(ctx, request));
    DAVIT_TRY(on_headers(reply.status, reply.headers));
    const std::string body = std::exchange(reply.body, {});
    if (!body.empty()) DAVIT_TRY(on_data(AsBytes(body)));
    return reply;
  }

  /// Requests to this host; the order is kept.
  std::vector<http::Request> To(const std::string& host) const {
    std::vector<http::Request> out;
    for (const http::Request& request : requests) {
      if (http::Url::Parse(request.url)->host == host) out.push_back(request);
    }
    return out;
  }

  std::vector<http::Request> requests;

 private:
  const Handler handler_;
};

/// Pauses take no time.
class PausingClock final : public Clock {
 public:
  TimePoint Now() const override { return now; }
  std::chrono::system_clock::time_point WallNow() const override { return {}; }
  bool SleepFor(Duration duration, std::stop_token) override {
    now += duration;
    return true;
  }
  TimePoint now{std::chrono::hours(1)};
};

}  // namespace davit::testing
