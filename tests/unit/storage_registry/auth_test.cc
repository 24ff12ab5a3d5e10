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
