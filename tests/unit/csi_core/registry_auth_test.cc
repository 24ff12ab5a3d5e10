#include "csi/core/registry_auth.h"

#include <gtest/gtest.h>

namespace davit::csi {
namespace {

using Secrets = std::map<std::string, Secret>;

TEST(RegistryAuth, BothFormsOfKubernetes) {
  const std::string config = R"({"auths":{"r.test":{"auth":"dTpw"}}})";
  EXPECT_EQ(RegistryAuthOf({{".dockerconfigjson", Secret(config)}})->Reveal(), config);
  EXPECT_EQ(RegistryAuthOf({{".dockercfg", Secret(R"({"r.test":{"auth":"dTpw"}})")}})->Reveal(),
            config);
  EXPECT_TRUE(RegistryAuthOf({})->empty());
  // What the kubelet adds is no pull secret.
  const Secrets tokens = {{"csi.storage.k8s.io/serviceAccount.tokens", Secret("t")}};
  EXPECT_TRUE(RegistryAuthOf(tokens)->empty());
}

TEST(RegistryAuth, ErrorsNeverShowTheValue) {
  for (const std::string value : {"hunter2-not-json", R"(["hunter2"])", R"({"auths":["hunter2"]})",
                                  R"({"hunter2":1})", R"({"auths":{"hunter2")"}) {
    const auto auth = RegistryAuthOf({{".dockerconfigjson", Secret(value)}});
    ASSERT_FALSE(auth.ok()) << value;
    EXPECT_EQ(auth.error().code(), Code::kInvalidArgument);
    EXPECT_EQ(auth.error().ToString().find("hunter2"), std::string::npos)
        << auth.error().ToString();
    EXPECT_NE(auth.error().ToString().find(".dockerconfigjson"), std::string::npos);
  }
  const auto unknown = RegistryAuthOf({{"password", Secret("hunter2")}});
  ASSERT_FALSE(unknown.ok());
  EXPECT_NE(unknown.error().ToString().find("password is not known"), std::string::npos);
  EXPECT_EQ(unknown.error().ToString().find("hunter2"), std::string::npos);
}

TEST(RegistryAuth, RemovesCredentialsFromTexts) {
  // "user:pa:ss-word"
  const Secret auth(
      R"({"auths":{"r.test":{"username":"user","password":"plain-password",
          "auth":"dXNlcjpwYTpzcy13b3Jk","identitytoken":"id-token-1","email":"a@b"}}})");
  const std::string clean = WithoutSecrets(
      "GET https://user:pa:ss-word@r.test plain-password id-token-1 dXNlcjpwYTpzcy13b3Jk "
      "only pa:ss-word",
      auth);
  EXPECT_EQ(clean,
            "GET https://<redacted>@r.test <redacted> <redacted> <redacted> only <redacted>");
  EXPECT_EQ(WithoutSecrets("user a@b", auth), "user a@b");
  EXPECT_EQ(WithoutSecrets("text", Secret()), "text");
  EXPECT_EQ(WithoutSecrets("text", Secret("no json")), "text");
}

}  // namespace
}  // namespace davit::csi
