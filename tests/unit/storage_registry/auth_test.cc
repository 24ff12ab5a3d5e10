#include "storage/registry/auth.h"

#include <gtest/gtest.h>

#include "storage/registry/base64.h"

namespace davit::registry {
namespace {

TEST(Challenge, ReadsWhatRegistriesSend) {
  const auto bearer = ParseChallenges(
      R"(Bearer realm="https://auth.io/token",service="reg.io",scope="repository:a/b:pull,push")");
  ASSERT_EQ(bearer.size(), 1U);
  EXPECT_EQ(bearer[0].scheme, "bearer");
  EXPECT_EQ(bearer[0].params.at("realm"), "https://auth.io/token");
  EXPECT_EQ(bearer[0].params.at("scope"), "repository:a/b:pull,push");
  const auto several = ParseChallenges(
      R"(Negotiate, NTLM abcd==, BASIC Realm = "a \"quoted\", b" , bearer realm=https://x/y)");
  ASSERT_EQ(several.size(), 4U);
  EXPECT_EQ(several[0].scheme, "negotiate");
  EXPECT_EQ(several[1].scheme, "ntlm");
  EXPECT_TRUE(several[1].params.empty());
  EXPECT_EQ(several[2].params.at("realm"), "a \"quoted\", b");
  EXPECT_EQ(several[3].params.at("realm"), "https://x/y");
}

TEST(Challenge, GarbageEnds) {
  for (const std::string& text : std::vector<std::string>{
           "", ",,,", "=", "Bearer realm=\"", "\"\"\"", "Bearer \\", "a=b=c",
           std::string(100'000, '='), std::string(100'000, 'a'), std::string("Bearer \0realm", 13)})
    ParseChallenges(text);
  for (const Challenge& one : ParseChallenges("realm=\"https://x\", Digest realm=\"y\""))
    EXPECT_TRUE(one.scheme != "bearer" && one.scheme != "basic") << one.scheme;
}

TEST(Realm, IsChecked) {
  const auto secure = http::Url::Parse("https://reg.io/").value();
  const auto plain = http::Url::Parse("http://reg.io/").value();
  EXPECT_TRUE(CheckRealm(secure, "https://auth.io/token").ok());
  EXPECT_FALSE(CheckRealm(secure, "http://auth.io/token").ok());
  EXPECT_TRUE(CheckRealm(plain, "http://auth.io/token").ok());
  EXPECT_FALSE(CheckRealm(secure, "https://user:pw@auth.io/").ok());
  EXPECT_FALSE(CheckRealm(secure, "file:///etc/passwd").ok());
  EXPECT_FALSE(CheckRealm(secure, "").ok());
  for (const char* host :
       {"169.254.169.254", "2852039166", "0xa9fea9fe", "[fe80::1]", "[::ffff:169.254.169.254]",
        "[fd00:ec2::254]", "metadata.google.internal"}) {
    EXPECT_FALSE(CheckRealm(plain, std::string("http://") + host + "/t").ok()) << host;
  }
  EXPECT_TRUE(
      CheckRealm(http::Url::Parse("http://169.254.1.2/").value(), "http://169.254.1.2/t").ok());
  EXPECT_FALSE(IsLinkLocal("169.253.1.1"));
  EXPECT_FALSE(IsLinkLocal("::1"));
}

class ManualClock final : public Clock {
 public:
  TimePoint Now() const override { return now; }
  std::chrono::system_clock::time_point WallNow() const override { return {}; }
  bool SleepFor(Duration duration, std::stop_token) override {
    now += duration;
    return true;
  }
  TimePoint now{std::chrono::hours(1)};
};

/// A token server without a network.
class TokenServer final : public http::Client {
 public:
  Result<http::Response> Do(const Context&, const http::Request& request) override {
    requests.push_back(request);
    return reply;
  }
  Result<http::Response> Stream(const Context&, const http::Request&, const OnHeaders&,
                                const OnData&) override {
    return Error(Code::kInternal, "not used");
  }
  http::Response reply{.status = 200, .body = R"({"access_token":"t1","expires_in":100})"};
  std::vector<http::Request> requests;
};

Endpoint SecureEndpoint() {
  Endpoint out;
  out.url = http::Url::Parse("https://reg.io/v2").value();
  out.tls = {.client_cert_file = "/c", .skip_verify = true};
  return out;
}

TEST(TokenCache, IdentityTokensGoByPost) {
  ManualClock clock;
  TokenServer server;
  TokenCache cache(server, clock);
  Credential credential;
  credential.identity_token = Secret("id&token");
  const http::Headers challenge{
      {"WWW-Authenticate", R"(Bearer realm="https://auth.io/t",service="s",scope="other:x:pull")"}};
  const auto got = cache.AfterUnauthorized({}, SecureEndpoint(), credential,
                                           RepositoryScope("a", "pull"), challenge, Secret());
  ASSERT_TRUE(got.ok()) << got.error().ToString();
  EXPECT_EQ(got->Reveal(), "Bearer t1");
  const http::Request& request = server.requests.at(0);
  EXPECT_EQ(request.method, "POST");
  EXPECT_EQ(request.url, "https://auth.io/t");
  EXPECT_NE(request.body.find("refresh_token=id%26token"), std::string::npos);
  EXPECT_NE(request.body.find("scope=repository%3Aa%3Apull%20other%3Ax%3Apull"), std::string::npos);
  // What is meant for the registry's own host is not shown to another one.
  EXPECT_FALSE(request.tls.skip_verify);
  EXPECT_TRUE(request.tls.client_cert_file.empty());
}

TEST(TokenCache, AValidTokenSurvivesAFailedRenewal) {
  ManualClock clock;
  TokenServer server;
  TokenCache cache(server, clock);
  const http::Headers challenge{{"WWW-Authenticate", R"(Bearer realm="https://auth.io/t")"}};
  const std::string scope = RepositoryScope("a", "pull");
  ASSERT_TRUE(cache.AfterUnauthorized({}, SecureEndpoint(), {}, scope, challenge, Secret()).ok());
  server.reply.status = 503;
  clock.now += std::chrono::seconds(90);  // renewal is due, the end is not there yet
  EXPECT_EQ(cache.Authorization({}, SecureEndpoint(), {}, scope)->Reveal(), "Bearer t1");
  EXPECT_EQ(server.requests.size(), 2U);
  clock.now += std::chrono::seconds(11);
  EXPECT_EQ(cache.Authorization({}, SecureEndpoint(), {}, scope).error().code(),
            Code::kUnavailable);
  // A token that would break out of its header is none.
  server.reply = {.status = 200, .body = R"({"token":"a\r\nX: y"})"};
  EXPECT_EQ(cache.Authorization({}, SecureEndpoint(), {}, scope).error().code(),
            Code::kUnauthenticated);
}

TEST(Base64, BothWays) {
  for (const std::string text : {"", "a", "ab", "abc", "user:pass\xff"})
    EXPECT_EQ(Base64Decode(Base64Encode(text)).value(), text);
  EXPECT_EQ(Base64Decode(" dTpw\n").value(), "u:p");
  EXPECT_EQ(Base64Decode("YQ").value(), "a");
  for (const char* bad : {"a", "a===", "!!!!", "YQ==YQ==", "a b c"})
    EXPECT_FALSE(Base64Decode(bad).ok()) << bad;
}

}  // namespace
}  // namespace davit::registry
