// Each refusal of a registry names the thing, the reason and the next step.

#include "storage/registry/errors.h"

#include <gtest/gtest.h>

#include "tests/unit/storage_registry/fake_network.h"

namespace davit::testing {
namespace {

const std::string kBlob = oci::DescribeContent("", "0123456789").digest;

std::string ErrorBody(const std::string& code) {
  return R"({"errors":[{"code":")" + code + R"(","message":"no such thing\n\u0007here"}]})";
}

struct Case {
  const char* name;
  http::Response reply;
  bool blob;
  Code code;
  std::vector<std::string> texts;  // besides the repository and what was asked
};

std::vector<Case> Cases() {
  const http::Headers basic = {{"WWW-Authenticate", "Basic realm=\"x\""}};
  return {
      {"401", {401, basic, ""}, false, Code::kUnauthenticated, {"a login is required", "log in"}},
      {"401 without a challenge",
       {401, {}, ""},
       false,
       Code::kUnauthenticated,
       {"401 without a challenge", "log in"}},
      {"403",
       {403, {}, ErrorBody("DENIED")},
       false,
       Code::kPermissionDenied,
       {"403", "DENIED: no such thing", "do not permit", "ask the registry's owner"}},
      {"404 name",
       {404, {}, ErrorBody("NAME_UNKNOWN")},
       false,
       Code::kNotFound,
       {"NAME_UNKNOWN", "check the name of the repository"}},
      {"404 manifest",
       {404, {}, ErrorBody("MANIFEST_UNKNOWN")},
       false,
       Code::kNotFound,
       {"MANIFEST_UNKNOWN", "check the tag or digest"}},
      {"404 blob",
       {404, {}, ErrorBody("BLOB_UNKNOWN")},
       true,
       Code::kNotFound,
       {kBlob, "BLOB_UNKNOWN", "push the image again"}},
      {"404 of a proxy", {404, {}, "<html>"}, false, Code::kNotFound, {"404", "check the name"}},
      {"429 spent",
       {429, {{"Retry-After", "1"}}, ErrorBody("TOOMANYREQUESTS")},
       false,
       Code::kUnavailable,
       {"429", "TOOMANYREQUESTS", "wait, log in, or use a mirror"}},
      {"429 for an hour",
       {429, {{"Retry-After", "3600"}}, ""},
       false,
       Code::kUnavailable,
       {"429", "use a mirror"}},
      {"503", {503, {}, ""}, false, Code::kUnavailable, {"503", "try again"}},
      {"413", {413, {}, ""}, false, Code::kResourceExhausted, {"413", "quota"}},
      {"a manifest that is none",
       {200, {}, R"({"mediaType":"application/x"})"},
       false,
       Code::kUnsupported,
       {"application/x", "davit reads OCI manifests"}},
      {"another manifest",
       {200, {{"Docker-Content-Digest", kBlob}}, R"({"manifests":[]})"},
       false,
       Code::kDataLoss,
       {"has the digest sha256:", "changed or damaged"}},
      {"another blob",
       {200, {}, "9876543210"},
       true,
       Code::kDataLoss,
       {kBlob, "arrived with the digest sha256:", "try again"}},
  };
}

TEST(RegistryErrors, NameThingReasonAndNextStep) {
  for (const Case& one : Cases()) {
    SCOPED_TRACE(one.name);
    FakeNetwork network([&](const http::Request&) { return one.reply; });
    PausingClock clock;
    registry::RegistryOptions options;
    options.retries = 2;
    const auto registries = registry::Registries::Create(options, network, clock, nullptr);
    const auto repository =
        registries->Open(registry::Reference::Parse("reg.example/team/app:v1").value()).value();
    std::optional<Error> error;
    if (one.blob) {
      const auto got = repository->GetBlob({}, oci::DescribeContent("", "0123456789"), 100);
      if (!got.ok()) error = got.error();
    } else {
      const auto got = repository->GetManifest({}, "v1");
      if (!got.ok()) error = got.error();
    }
    ASSERT_TRUE(error);
    EXPECT_EQ(error->code(), one.code) << error->ToString();
    EXPECT_FALSE(error->hint().empty()) << error->ToString();
    std::vector<std::string> texts = one.texts;
    texts.emplace_back("reg.example/team/app");
    if (!one.blob) texts.emplace_back("get the manifest 'v1'");
    for (const std::string& text : texts)
      EXPECT_NE(error->ToString().find(text), std::string::npos)
          << text << " | " << error->ToString();
    for (const char c : error->ToString()) EXPECT_GE(static_cast<unsigned char>(c), 0x20);
  }
}

TEST(RegistryErrors, LongAndHostileBodiesStayShort) {
  for (const std::string& body :
       {std::string(100'000, '['),
        R"({"errors":[{"message":")" + std::string(60'000, 'x') + "\"}]}",
        std::string(R"({"errors":[[]]})"), std::string(R"({"errors":{"code":1}})"),
        std::string(R"({"errors":[{"code":7,"message":["a"]}]})"), std::string("\xff\xfe{}"),
        std::string("null"), std::string("[1,2]")}) {
    const Error error = registry::ErrorFromReply({404, {}, body}, "get x", {});
    EXPECT_EQ(error.code(), Code::kNotFound);
    EXPECT_LT(error.message().size(), 300U);
    EXPECT_TRUE(error.message().starts_with("get x: HTTP status 404")) << error.message();
  }
}

}  // namespace
}  // namespace davit::testing
