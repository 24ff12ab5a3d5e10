#include "daemon/api/types.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <set>

namespace davit::daemon::api {
namespace {

MountRequest Request() {
  MountRequest request;
  request.id = "pod-1.vol_A";
  request.source = "registry.example/app:v1";
  request.mountpoint = "/mnt/x";
  return request;
}

TEST(MountRequestTest, RoundTrip) {
  MountRequest request = Request();
  request.platform = "linux/arm64";
  request.ready = Ready::kComplete;
  request.fill = false;
  request.plain_http = true;
  request.registry_auth = Secret(R"({"auths":{}})");
  const auto again = MountRequest::FromJson(request.ToJson());
  ASSERT_TRUE(again.ok()) << again.error().ToString();
  EXPECT_EQ(again->id, request.id);
  EXPECT_EQ(again->source, request.source);
  EXPECT_EQ(again->mountpoint, request.mountpoint);
  EXPECT_EQ(again->platform, request.platform);
  EXPECT_EQ(again->ready, request.ready);
  EXPECT_FALSE(again->fill);
  EXPECT_TRUE(again->plain_http);
  EXPECT_EQ(again->registry_auth, request.registry_auth);
}

TEST(MountRequestTest, DefaultsOfMissingMembers) {
  const auto request = MountRequest::FromJson(R"({"id":"a","source":"b","mountpoint":"/c"})");
  ASSERT_TRUE(request.ok());
  EXPECT_EQ(request->ready, Ready::kMounted);
  EXPECT_TRUE(request->fill);
  EXPECT_FALSE(request->plain_http);
}

TEST(MountRequestTest, HostileBodiesAreRefused) {
  const std::string ok = R"({"id":"a","source":"b","mountpoint":"/c")";
  for (const std::string& text :
       {std::string(), std::string("null"), std::string("[]"), std::string("{}"),
        std::string(R"({"id":1,"source":"b","mountpoint":"/c"})"), ok, ok + R"(,"unknown":1})",
        ok + R"(,"ready":"soon"})", ok + R"(,"fill":"yes"})",
        std::string(R"({"id":"../x","source":"b","mountpoint":"/c"})"),
        std::string(R"({"id":"","source":"b","mountpoint":"/c"})"),
        std::string(R"({"id":"a","source":"","mountpoint":"/c"})"),
        std::string(R"({"id":"a","source":"b","mountpoint":"c"})"),
        std::string(R"({"id":"a","source":"b","mountpoint":"/"})"),
        std::string(R"({"id":"a","source":"b","mountpoint":"/a/../etc"})"),
        std::string(R"({"id":"a","source":"b","mountpoint":"/a\u0000b"})"),
        std::string(R"({"id":"a","source":"b\nc","mountpoint":"/a"})"),
        R"({"id":")" + std::string(129, 'a') + R"(","source":"b","mountpoint":"/c"})",
        std::string(100'000, '[')}) {
    const auto parsed = MountRequest::FromJson(text);
    ASSERT_FALSE(parsed.ok()) << text.substr(0, 100);
    EXPECT_EQ(parsed.error().code(), Code::kInvalidArgument);
  }
}

TEST(MountInfoTest, RoundTripWithAnyBytes) {
  MountInfo info;
  info.id = "m";
  info.source = "bad \xff utf8";
  info.state = "failed";
  info.error = "why";
  info.error_code = "unavailable";
  info.bytes_total = 1ULL << 60;
  const auto again = MountInfoFromJson(ToJson(info));
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(again->bytes_total, info.bytes_total);
  EXPECT_EQ(again->error_code, "unavailable");
  const auto list = MountListFromJson(ToJson(std::vector<MountInfo>{info, info}));
  ASSERT_TRUE(list.ok());
  EXPECT_EQ(list->size(), 2U);
}

TEST(MountInfoTest, WrongTypesOfANewerDaemonDoNotThrow) {
  EXPECT_TRUE(MountInfoFromJson(R"({"id":7,"bytes_total":-1,"complete":"x"})").ok());
  EXPECT_FALSE(MountInfoFromJson("[]").ok());
  EXPECT_TRUE(MountListFromJson("[1,{}]").ok());
  EXPECT_FALSE(CacheInfoFromJson(R"({"blobs":1})").ok());
}

TEST(CacheInfoTest, RoundTrip) {
  CacheInfo info;
  info.directory = "/c";
  info.fetched_bytes = 5;
  info.blobs.push_back({.id = "b", .bytes_total = 9, .bytes_ready = 8, .in_use = true});
  const auto again = CacheInfoFromJson(ToJson(info));
  ASSERT_TRUE(again.ok());
  ASSERT_EQ(again->blobs.size(), 1U);
  EXPECT_EQ(again->blobs[0].bytes_ready, 8U);
  EXPECT_TRUE(again->blobs[0].in_use);
}

TEST(ErrorTest, CodesSurviveTheWire) {
  std::set<int> statuses;
  for (int i = 0; i <= static_cast<int>(Code::kInternal); ++i) {
    const Code code = static_cast<Code>(i);
    EXPECT_EQ(CodeFromName(CodeName(code)), code);
    EXPECT_TRUE(statuses.insert(HttpStatusOf(code)).second) << CodeName(code);
    const Error back = ErrorFromReply(HttpStatusOf(code), ToJson(Error(code, "text")));
    EXPECT_EQ(back.code(), code);
    EXPECT_EQ(back.message(), "text");
    // Without a body the status alone says what it was.
    EXPECT_EQ(ErrorFromReply(HttpStatusOf(code), "<html>").code(), code);
  }
  EXPECT_EQ(ErrorFromReply(599, "").code(), Code::kUnavailable);
}

TEST(PrefetchRequestTest, PathsAreOptional) {
  EXPECT_TRUE(PrefetchRequest::FromJson("")->paths.empty());
  EXPECT_TRUE(PrefetchRequest::FromJson("{}")->paths.empty());
  EXPECT_EQ(PrefetchRequest::FromJson(R"({"paths":["/a"]})")->paths.size(), 1U);
  EXPECT_FALSE(PrefetchRequest::FromJson(R"({"paths":"/a"})").ok());
  EXPECT_FALSE(PrefetchRequest::FromJson(R"({"paths":[1]})").ok());
}

}  // namespace
}  // namespace davit::daemon::api
