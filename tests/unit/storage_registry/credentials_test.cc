#include "storage/registry/credentials.h"

#include <gtest/gtest.h>
#include <stdlib.h>

#include "common/base/fd.h"

namespace davit::registry {
namespace {

// "dTpw" is u:p, "bDpwYXRo" is l:path.
constexpr const char* kConfig = R"({"auths":{
  "https://index.docker.io/v1/":{"auth":"dTpw"},
  "reg.io":{"username":"plain","password":"pw"},
  "reg.io/team":{"auth":"bDpwYXRo"},
  "*.wild.io":{"auth":"dTpw"},
  "empty.io":{},
  "http://localhost:5000":{"identitytoken":"idt"}}})";

std::string User(CredentialProvider& provider, const std::string& host,
                 const std::string& repository = "x") {
  const auto got = provider.Get({}, host, repository);
  return got.ok() ? got->username : "error: " + got.error().ToString();
}

TEST(DockerConfig, FindsTheMostSpecificEntry) {
  const auto provider = DockerConfigText(Secret(kConfig)).value();
  EXPECT_EQ(User(*provider, "docker.io"), "u");
  EXPECT_EQ(User(*provider, "registry-1.docker.io"), "u");
  EXPECT_EQ(User(*provider, "reg.io", "other"), "plain");
  EXPECT_EQ(User(*provider, "reg.io", "team/app"), "l");
  EXPECT_EQ(User(*provider, "reg.io", "teamwork"), "plain");
  EXPECT_EQ(User(*provider, "a.wild.io"), "u");
  EXPECT_EQ(User(*provider, "a.b.wild.io"), "");
  EXPECT_EQ(User(*provider, "wild.io"), "");
  EXPECT_EQ(User(*provider, "empty.io"), "");
  EXPECT_EQ(User(*provider, "reg.io:5000"), "");
  EXPECT_EQ(provider->Get({}, "localhost:5000", "x").value().identity_token.Reveal(), "idt");
}

TEST(DockerConfig, ReadsTheOldForm) {
  const auto provider =
      DockerConfigText(Secret(R"({"https://reg.io/v1/":{"auth":"dTpw"}})")).value();
  EXPECT_EQ(User(*provider, "reg.io"), "u");
}

TEST(DockerConfig, MistakesAreNamedWithoutSecrets) {
  for (const char* text :
       {"", "[]", R"({"auths":[]})", R"({"auths":{"h":1}})",
        R"({"auths":{"h":{"auth":"TOPSECRET!"}}})", R"({"auths":{"h":{"auth":"VE9QU0VDUkVU"}}})",
        R"({"credHelpers":{"h":1}})"}) {
    const auto got = DockerConfigText(Secret(text));
    ASSERT_FALSE(got.ok()) << text;
    EXPECT_EQ(got.error().code(), Code::kInvalidArgument);
    EXPECT_EQ(got.error().ToString().find("SECRET"), std::string::npos);
  }
}

TEST(DockerConfig, FileIsReadAgainWhenItChanges) {
  const TempDir dir = *TempDir::Create("davit-cred-");
  const std::string path = dir.path() + "/config.json";
  const auto provider = DockerConfigFile(path);
  EXPECT_EQ(User(*provider, "reg.io"), "");
  ASSERT_TRUE(WriteFileAtomic(path, AsBytes(R"({"auths":{"reg.io":{"auth":"dTpw"}}})")).ok());
  EXPECT_EQ(User(*provider, "reg.io"), "u");
  ASSERT_TRUE(WriteFileAtomic(path, AsBytes(R"({"auths":{"reg.io":{"auth":"bDpwYXRo"}}})")).ok());
  EXPECT_EQ(User(*provider, "reg.io"), "l");
  ASSERT_TRUE(WriteFileAtomic(path, AsBytes("{")).ok());
  EXPECT_NE(User(*provider, "reg.io").find(path), std::string::npos);
}

class HelperTest : public ::testing::Test {
 protected:
  void SetUp() override {
    old_ = getenv("PATH");
    setenv("PATH", (dir_.path() + ":" + old_).c_str(), 1);
  }
  void TearDown() override { setenv("PATH", old_.c_str(), 1); }
  void Script(const std::string& name, const std::string& body) {
    ASSERT_TRUE(WriteFileAtomic(dir_.path() + "/docker-credential-" + name,
                                AsBytes("#!/bin/sh\n" + body), 0755)
                    .ok());
  }
  TempDir dir_ = *TempDir::Create("davit-helper-");
  std::string old_;
};

TEST_F(HelperTest, AsksTheHelper) {
  Script("ok", R"(read host; echo "{\"Username\":\"$1-$host\",\"Secret\":\"s\"}")");
  EXPECT_EQ(User(*CredentialHelper("ok"), "reg.io"), "get-reg.io");
  EXPECT_EQ(User(*CredentialHelper("ok"), "docker.io"), "get-https://index.docker.io/v1/");
  Script("token", R"(echo '{"Username":"<token>","Secret":"refresh"}')");
  const auto token = CredentialHelper("token")->Get({}, "h", "r").value();
  EXPECT_EQ(token.identity_token.Reveal(), "refresh");
  EXPECT_TRUE(token.username.empty());
  const auto config =
      DockerConfigText(
          Secret(
              R"({"auths":{"b.io":{"auth":"dTpw"}},"credHelpers":{"a.io":"ok"},"credsStore":"none"})"))
          .value();
  Script("none", "echo 'credentials not found in native keychain'; exit 1");
  EXPECT_EQ(User(*config, "a.io"), "get-a.io");
  EXPECT_EQ(User(*config, "b.io"), "u");
}

TEST_F(HelperTest, FailuresAreErrorsWithoutOutput) {
  Script("bad", "echo hushhush; exit 3");
  const auto bad = CredentialHelper("bad")->Get({}, "h", "r");
  ASSERT_FALSE(bad.ok());
  EXPECT_EQ(bad.error().code(), Code::kUnauthenticated);
  EXPECT_EQ(bad.error().ToString().find("hushhush"), std::string::npos);
  Script("junk", "echo nonsense");
  EXPECT_FALSE(CredentialHelper("junk")->Get({}, "h", "r").ok());
  Script("big", "yes");
  EXPECT_EQ(CredentialHelper("big")->Get({}, "h", "r").error().code(), Code::kResourceExhausted);
  EXPECT_EQ(CredentialHelper("missing")->Get({}, "h", "r").error().code(),
            Code::kFailedPrecondition);
  EXPECT_EQ(CredentialHelper("../x")->Get({}, "h", "r").error().code(), Code::kInvalidArgument);
  Script("slow", "sleep 60");
  const Context soon = Context().WithTimeout(std::chrono::milliseconds(100));
  EXPECT_EQ(CredentialHelper("slow")->Get(soon, "h", "r").error().code(), Code::kDeadlineExceeded);
}

TEST(Credentials, EnvironmentAndOrder) {
  setenv("IMAGE_PULL_AUTH", "dTpw", 1);
  std::vector<std::unique_ptr<CredentialProvider>> all;
  all.push_back(FixedCredential({}));
  all.push_back(EnvironmentAuth());
  const auto first = FirstOf(std::move(all));
  EXPECT_EQ(User(*first, "any.io"), "u");
  EXPECT_TRUE(first->GetForOther({}, "mirror.io", "r")->anonymous());
  setenv("IMAGE_PULL_AUTH", "not base64!", 1);
  const auto bad = first->Get({}, "any.io", "x");
  EXPECT_FALSE(bad.ok());
  unsetenv("IMAGE_PULL_AUTH");
  EXPECT_EQ(User(*first, "any.io"), "");
}

}  // namespace
}  // namespace davit::registry
