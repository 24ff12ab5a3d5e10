// What replies say about the endpoint: leave me alone, few requests are left, a warning.

#include "storage/registry/health.h"

#include <gtest/gtest.h>

#include "storage/blob/blob.h"
#include "storage/registry/errors.h"
#include "tests/unit/storage_registry/fake_network.h"

namespace davit::testing {
namespace {

using std::chrono::seconds;

const std::string kOrigin = "https://reg.example:443";
const std::string kOther = "https://mirror.example:443";
constexpr std::string_view kNearlyUsedUp = "rate limit is nearly used up";
constexpr std::string_view kWarns = "the registry warns";

int Count(std::string_view log, std::string_view text) {
  int count = 0;
  for (std::size_t at = log.find(text); at != std::string_view::npos; at = log.find(text, at + 1))
    ++count;
  return count;
}

class HealthTest : public ::testing::Test {
 protected:
  /// What the log says while this reply is looked at.
  std::string Saw(const std::string& origin, int status, const http::Headers& headers) {
    ::testing::internal::CaptureStderr();
    health_.Saw(origin, {status, headers, ""});
    return ::testing::internal::GetCapturedStderr();
  }
  int LowWarnings(const std::string& origin, const std::string& left) {
    return Count(Saw(origin, 200, {{"RateLimit-Remaining", left}}), kNearlyUsedUp);
  }

  PausingClock clock_;
  registry::EndpointHealth health_{clock_};
};

TEST_F(HealthTest, FewRequestsLeftAreSaidOnceAndAgainAfterARecovery) {
  EXPECT_EQ(LowWarnings(kOrigin, "76;w=21600"), 0);
  EXPECT_EQ(LowWarnings(kOrigin, "10;w=21600"), 0);
  const std::string log = Saw(kOrigin, 200, {{"ratelimit-remaining", "9;w=21600"}});
  EXPECT_EQ(Count(log, kNearlyUsedUp), 1) << log;
  EXPECT_EQ(Count(log, "requests_left=9"), 1) << log;
  EXPECT_EQ(Count(log, kOrigin), 1) << log;
  EXPECT_EQ(LowWarnings(kOrigin, "8;w=21600"), 0);
  EXPECT_EQ(LowWarnings(kOrigin, "0"), 0);
  // Replies without the header, or with one that says nothing, are no recovery.
  EXPECT_EQ(Saw(kOrigin, 200, {}), "");
  for (const char* nothing : {"", "many", "-1", "99999999999999999999999", ";w=1"})
    EXPECT_EQ(LowWarnings(kOrigin, nothing), 0) << nothing;
  EXPECT_EQ(LowWarnings(kOrigin, "7"), 0);
  // Each endpoint has a limit of its own.
  EXPECT_EQ(LowWarnings(kOther, "1"), 1);

  EXPECT_EQ(LowWarnings(kOrigin, "100;w=21600"), 0);
  EXPECT_EQ(LowWarnings(kOrigin, "3"), 1);
  EXPECT_EQ(LowWarnings(kOrigin, "2"), 0);
  // It is a line in the log and no more: requests go on until the registry refuses one.
  EXPECT_TRUE(health_.Usable(kOrigin));
  EXPECT_FALSE(health_.Paused(kOrigin));
}

TEST_F(HealthTest, AWarningOfTheRegistryIsSaidOnceAndShort) {
  const http::Headers others = {{"Warning", R"(199 - "stale")"}};
  EXPECT_EQ(Saw(kOrigin, 200, others), "");
  const std::string text = R"(299 - "this registry goes away in May")";
  const std::string log = Saw(kOrigin, 200, {{"Warning", text + std::string(5000, '!')}});
  EXPECT_EQ(Count(log, kWarns), 1) << log;
  EXPECT_EQ(Count(log, "this registry goes away in May"), 1) << log;
  EXPECT_LT(log.size(), 500U);
  EXPECT_EQ(Saw(kOrigin, 200, {{"Warning", text}}), "");
  EXPECT_EQ(Count(Saw(kOther, 200, {{"Warning", text}}), kWarns), 1);
  EXPECT_TRUE(health_.Usable(kOrigin));
}

TEST_F(HealthTest, AWarningIsOneLineWhateverItHolds) {
  const std::string log = Saw(kOrigin, 200, {{"Warning", "299 - \"a\x1b[2J\nlevel=error\""}});
  EXPECT_EQ(Count(log, "\n"), 1) << log;
  EXPECT_EQ(log.find('\x1b'), std::string::npos) << log;
}

TEST_F(HealthTest, ARetryAfterIsObeyedUpToAnEnd) {
  health_.Saw(kOrigin, {429, {{"Retry-After", "30"}}, ""});
  EXPECT_EQ(health_.Paused(kOrigin), seconds(30));
  EXPECT_FALSE(health_.Usable(kOrigin));
  EXPECT_FALSE(health_.Paused(kOther));
  // A shorter one of another connection does not shorten it.
  health_.Saw(kOrigin, {503, {{"Retry-After", "1"}}, ""});
  EXPECT_EQ(health_.Paused(kOrigin), seconds(30));
  clock_.now += seconds(30);
  EXPECT_FALSE(health_.Paused(kOrigin));
  EXPECT_TRUE(health_.Usable(kOrigin));

  // Not believed: as long as the scheduler waits, and not a second more.
  for (const char* more : {"601", "3600", "86400", "Tue, 14 Nov 3577 22:13:00 GMT"}) {
    SCOPED_TRACE(more);
    health_.Saw(kOrigin, {503, {{"Retry-After", more}}, ""});
    EXPECT_EQ(health_.Paused(kOrigin), storage::kMaxRetryAfter);
    clock_.now += storage::kMaxRetryAfter;
    EXPECT_FALSE(health_.Paused(kOrigin));
  }
  // Only of replies that mean it.
  for (const int status : {200, 401, 404, 500}) {
    health_.Saw(kOrigin, {status, {{"Retry-After", "30"}}, ""});
    EXPECT_FALSE(health_.Paused(kOrigin)) << status;
  }
}

TEST_F(HealthTest, ErrorsCarryTheSameEnd) {
  const auto carried = [](const char* value) {
    return registry::ErrorFromReply({429, {{"Retry-After", value}}, ""}, "get x", {}).retry_after();
  };
  EXPECT_EQ(carried("12"), seconds(12));
  EXPECT_EQ(carried("3600"), storage::kMaxRetryAfter);
  EXPECT_EQ(carried("soon"), std::nullopt);
}

}  // namespace
}  // namespace davit::testing
