#include "daemon/core/routes.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "common/json/json.h"
#include "fakes.h"

namespace davit::daemon {
namespace {

class RoutesTest : public ::testing::Test {
 protected:
  http::Response Ask(std::string method, std::string path, std::string body = {},
                     std::vector<std::pair<std::string, std::string>> query = {}) {
    return Handle(service, slots, options,
                  {.method = std::move(method),
                   .path = std::move(path),
                   .query = std::move(query),
                   .headers = {},
                   .body = std::move(body)});
  }
  static std::string CodeOf(const http::Response& response) {
    const auto body = json::Parse(response.body, "body");
    return body.ok() ? body->value("code", "") : "no JSON";
  }

  static constexpr const char* kRequest =
      R"({"id":"m","source":"registry/app:v1","mountpoint":"/mnt/m"})";
  testing::FakeService service;
  WaitSlots slots{2};
  RouteOptions options;
};

TEST_F(RoutesTest, MountAnswersWithTheMount) {
  const auto response = Ask("POST", "/api/v1/mounts", kRequest);
  EXPECT_EQ(response.status, 200);
  EXPECT_EQ(api::MountInfoFromJson(response.body)->id, "m");
  EXPECT_EQ(service.last_wait, options.wait);
}

TEST_F(RoutesTest, WhatIsNotDoneYetIs202) {
  service.pending = true;
  EXPECT_EQ(Ask("POST", "/api/v1/mounts", kRequest).status, 202);
  EXPECT_EQ(Ask("DELETE", "/api/v1/mounts/m").status, 202);
  EXPECT_EQ(Ask("POST", "/api/v1/cache/evict", R"({"bytes":1})").status, 202);
}

TEST_F(RoutesTest, WithoutAFreeSlotNobodyWaits) {
  ASSERT_TRUE(slots.Take());
  ASSERT_TRUE(slots.Take());
  EXPECT_FALSE(slots.Take());
  Ask("POST", "/api/v1/mounts", kRequest);
  EXPECT_EQ(service.last_wait, Duration::zero());
  slots.Return();
  Ask("POST", "/api/v1/mounts", kRequest);
  EXPECT_EQ(service.last_wait, options.wait);
  EXPECT_TRUE(slots.Take());  // it was given back
}

TEST_F(RoutesTest, ErrorsHaveTheirStatusCodeAndRetryAfter) {
  service.error =
      Error(Code::kUnavailable, "davitd is stopping").WithRetryAfter(std::chrono::seconds(2));
  const auto response = Ask("POST", "/api/v1/mounts", kRequest);
  EXPECT_EQ(response.status, 503);
  EXPECT_EQ(CodeOf(response), "unavailable");
  EXPECT_EQ(response.headers.Get("Retry-After"), "2");
}

TEST_F(RoutesTest, EveryCallHasAnIdThatItsReplyNames) {
  http::ServerRequest request{
      .method = "GET", .path = "/api/v1/mounts/none", .query = {}, .headers = {}, .body = {}};
  request.headers.Set("x-request-id", "mine-1");
  auto response = Handle(service, slots, options, request);
  EXPECT_EQ(response.headers.Get("X-Request-Id"), "mine-1");
  EXPECT_EQ(json::Parse(response.body, "body")->value("request_id", ""), "mine-1");
  request.headers.Set("x-request-id", "not \"an\" id");
  response = Handle(service, slots, options, request);
  const std::string made(response.headers.Get("X-Request-Id").value_or(""));
  EXPECT_EQ(made.size(), 16U);
  EXPECT_EQ(json::Parse(response.body, "body")->value("request_id", ""), made);
  EXPECT_NE(Ask("GET", "/healthz").headers.Get("X-Request-Id"), std::nullopt);
}

TEST_F(RoutesTest, BadRequestsAreRefusedBeforeTheService) {
  service.error = Error(Code::kInternal, "must not be asked");
  EXPECT_EQ(CodeOf(Ask("POST", "/api/v1/mounts", "{")), "invalid_argument");
  EXPECT_EQ(CodeOf(Ask("POST", "/api/v1/mounts", R"({"id":"m"})")), "invalid_argument");
  EXPECT_EQ(CodeOf(Ask("DELETE", "/api/v1/mounts/a%2f")), "invalid_argument");
  EXPECT_EQ(CodeOf(Ask("DELETE", "/api/v1/mounts/m", "", {{"force", "maybe"}})),
            "invalid_argument");
  EXPECT_EQ(CodeOf(Ask("GET", "/api/v1/events", "", {{"since", "-1"}})), "invalid_argument");
  EXPECT_EQ(CodeOf(Ask("POST", "/api/v1/cache/evict", R"({"bytes":"x"})")), "invalid_argument");
  EXPECT_EQ(CodeOf(Ask("PUT", "/api/v1/daemon", R"({"log_level":"loud"})")), "invalid_argument");
}

TEST_F(RoutesTest, UnknownPathsAndMethods) {
  EXPECT_EQ(Ask("GET", "/api/v1/nothing").status, 404);
  EXPECT_EQ(Ask("GET", "/api/v1/mounts/").status, 404);
  EXPECT_EQ(Ask("GET", "/api/v1/mounts/a/b").status, 404);
  const auto response = Ask("PATCH", "/api/v1/mounts");
  EXPECT_EQ(response.status, 405);
  EXPECT_EQ(response.headers.Get("Allow"), "GET, POST");
}

TEST_F(RoutesTest, ArgumentsArrive) {
  Ask("DELETE", "/api/v1/mounts/m", "", {{"force", "true"}});
  EXPECT_TRUE(service.last_force);
  Ask("PUT", "/api/v1/daemon", R"({"log_level":"debug"})");
  EXPECT_EQ(service.last_level, "debug");
  EXPECT_EQ(api::EventsFromJson(Ask("GET", "/api/v1/events", "", {{"since", "1"}}).body)->size(),
            2U);
  EXPECT_EQ(Ask("POST", "/api/v1/cache/evict", R"({"bytes":10})").body,
            R"({"state":"evicted","freed_bytes":5})");
  EXPECT_EQ(Ask("POST", "/api/v1/mounts/other/prefetch").status, 404);
}

}  // namespace
}  // namespace davit::daemon
