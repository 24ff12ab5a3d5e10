#include "common/http/message.h"

#include <gtest/gtest.h>

namespace davit::http {
namespace {

TEST(Headers, NamesCompareWithoutCase) {
  Headers headers{{"Content-Type", "a"}, {"X", "1"}, {"x", "2"}};
  EXPECT_EQ(headers.Get("content-type"), "a");
  EXPECT_EQ(headers.GetAll("X").size(), 2U);
  headers.Set("X", "3");
  EXPECT_EQ(headers.GetAll("x").size(), 1U);
  EXPECT_FALSE(headers.Get("y"));
}

TEST(Url, PartsAndOrigin) {
  const auto url = Url::Parse("HTTPS://Example.COM/a/b?c=d");
  ASSERT_TRUE(url.ok());
  EXPECT_EQ(url->Origin(), "https://example.com");
  EXPECT_EQ(url->port, 443);
  EXPECT_EQ(url->path, "/a/b?c=d");
  EXPECT_EQ(Url::Parse("http://[::1]:5000")->ToString(), "http://[::1]:5000/");
}

TEST(Url, RefusesWhatMustNotBeAsked) {
  for (const char* bad : {"", "ftp://x/y", "file:///etc/passwd", "http://", "http://user:pw@host/",
                          "http://x:99999/", "/only/path", "http://a b/"}) {
    EXPECT_EQ(Url::Parse(bad).error().code(), Code::kInvalidArgument) << bad;
  }
}

TEST(Url, ResolvesLocations) {
  const Url base = *Url::Parse("http://host:5000/v2/a/blobs/uploads/?x=1");
  EXPECT_EQ(base.Resolve("/v2/b?state=y")->ToString(), "http://host:5000/v2/b?state=y");
  EXPECT_EQ(base.Resolve("https://other/z")->ToString(), "https://other/z");
  EXPECT_EQ(base.Resolve("next")->ToString(), "http://host:5000/v2/a/blobs/uploads/next");
  EXPECT_FALSE(base.Resolve("file:///etc/passwd").ok());
}

TEST(RetryAfter, SecondsDatesAndNonsense) {
  const auto now =
      std::chrono::system_clock::from_time_t(1'700'000'000);  // 2023-11-14 22:13:20 UTC
  EXPECT_EQ(ParseRetryAfter("7", now), std::chrono::seconds(7));
  EXPECT_EQ(ParseRetryAfter("99999999999999999999", now), std::nullopt);
  EXPECT_EQ(ParseRetryAfter("86400", now), std::chrono::seconds(3600));
  EXPECT_EQ(ParseRetryAfter("Tue, 14 Nov 2023 22:13:30 GMT", now), std::chrono::seconds(10));
  EXPECT_EQ(ParseRetryAfter("Tue, 14 Nov 2023 22:13:00 GMT", now), std::chrono::seconds(0));
  EXPECT_EQ(ParseRetryAfter("Tue, 14 Nov 3577 22:13:00 GMT", now), std::chrono::seconds(3600));
  EXPECT_EQ(ParseRetryAfter("soon", now), std::nullopt);
}

TEST(ContentRangeTest, AcceptsOnlyWhatIsWellFormed) {
  const auto range = ContentRange::Parse("bytes 10-19/100");
  ASSERT_TRUE(range.ok());
  EXPECT_EQ(range->range, (ByteRange{10, 10}));
  EXPECT_EQ(range->total, 100U);
  EXPECT_FALSE(ContentRange::Parse("bytes 0-0/*")->total);
  for (const char* bad : {"", "bytes */100", "bytes 5-4/10", "bytes 0-10/10", "bytes 0-/10",
                          "items 0-1/2", "bytes 0-18446744073709551615/*", "bytes -1-2/3"}) {
    EXPECT_EQ(ContentRange::Parse(bad).error().code(), Code::kDataLoss) << bad;
  }
}

TEST(UrlEncodeTest, KeepsOnlyUnreserved) { EXPECT_EQ(UrlEncode("a b/ü~"), "a%20b%2F%C3%BC~"); }

}  // namespace
}  // namespace davit::http
