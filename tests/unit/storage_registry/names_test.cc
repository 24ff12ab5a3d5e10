#include <gtest/gtest.h>

#include "storage/registry/errors.h"
#include "storage/registry/reference.h"

namespace davit::registry {
namespace {

const std::string kHex(64, 'a');
const std::string kDigest = "sha256:" + kHex;

struct Good {
  std::string text, host, repository, tag, digest, canonical;
};

TEST(Reference, ReadsNamesAsDockerDoes) {
  const Good table[] = {
      {"ubuntu", "docker.io", "library/ubuntu", "latest", "", "docker.io/library/ubuntu:latest"},
      {"a/b", "docker.io", "a/b", "latest", "", "docker.io/a/b:latest"},
      {"index.docker.io/x:1", "docker.io", "library/x", "1", "", "docker.io/library/x:1"},
      {"ghcr.io/o/app:v1.2-a", "ghcr.io", "o/app", "v1.2-a", "", "ghcr.io/o/app:v1.2-a"},
      {"GHCR.io/o/app:V", "ghcr.io", "o/app", "V", "", "ghcr.io/o/app:V"},
      {"localhost/a", "localhost", "a", "latest", "", "localhost/a:latest"},
      {"localhost:5000/a", "localhost:5000", "a", "latest", "", "localhost:5000/a:latest"},
      {"[::1]:5000/a:t", "[::1]:5000", "a", "t", "", "[::1]:5000/a:t"},
      {"h.io/a@" + kDigest, "h.io", "a", "", kDigest, "h.io/a@" + kDigest},
      {"h.io/a:t@" + kDigest, "h.io", "a", "t", kDigest, "h.io/a:t@" + kDigest},
      {"h.io/a__b/c--d/e.f", "h.io", "a__b/c--d/e.f", "latest", "", "h.io/a__b/c--d/e.f:latest"},
  };
  for (const Good& one : table) {
    const auto got = Reference::Parse(one.text);
    ASSERT_TRUE(got.ok()) << one.text << ": " << got.error().ToString();
    EXPECT_EQ(got->kind, Reference::Kind::kRegistry);
    EXPECT_EQ(got->host, one.host) << one.text;
    EXPECT_EQ(got->repository, one.repository) << one.text;
    EXPECT_EQ(got->tag, one.tag) << one.text;
    EXPECT_EQ(got->digest, one.digest) << one.text;
    EXPECT_EQ(got->ToString(), one.canonical);
    EXPECT_EQ(Reference::Parse(got->ToString()).value(), *got);
  }
}

TEST(Reference, ReadsLayouts) {
  const auto plain = Reference::Parse("oci:/a/b:c/d").value();
  EXPECT_EQ(plain.kind, Reference::Kind::kOciLayout);
  EXPECT_EQ(plain.repository, "/a/b:c/d");
  EXPECT_EQ(plain.tag, "");
  const auto tagged = Reference::Parse("oci:/a/b@c:v1@" + kDigest).value();
  EXPECT_EQ(tagged.repository, "/a/b@c");
  EXPECT_EQ(tagged.tag, "v1");
  EXPECT_EQ(tagged.digest, kDigest);
  EXPECT_EQ(Reference::Parse("oci:rel:t").value().repository, "rel");
  EXPECT_EQ(Reference::Parse(tagged.ToString()).value(), tagged);
}

TEST(Reference, RefusesEverythingElse) {
  for (const std::string& text : std::vector<std::string>{"",
                                                          " ",
                                                          "A",
                                                          "a//b",
                                                          "/a",
                                                          "a/",
                                                          "h.io/",
                                                          "h.io/A",
                                                          "h.io/a:",
                                                          "h.io/a:-x",
                                                          "h.io/a:b/c:d e",
                                                          "h.io/a@sha256:abc",
                                                          "h.io/a@md5:" + kHex,
                                                          "h.io/a/../b",
                                                          "https://h.io/a",
                                                          "docker://h.io/a",
                                                          "h.io:0/a",
                                                          "h.io:99999/a",
                                                          "h.io:x/a",
                                                          "h..io/a",
                                                          ".io/a",
                                                          "[::1/a",
                                                          "[zz]/a",
                                                          "h.io/a\n",
                                                          "user@h.io/a",
                                                          "Registry/a",
                                                          "h.io/a?b",
                                                          "oci:",
                                                          "oci::tag",
                                                          "oci:/a:b c",
                                                          std::string("h.io/a\0b", 8),
                                                          std::string(5000, 'a'),
                                                          "h.io/" + std::string(256, 'a'),
                                                          std::string(248, 'a'),  // + library/
                                                          "h.io/a:" + std::string(129, 'a')}) {
    const auto got = Reference::Parse(text);
    EXPECT_FALSE(got.ok()) << text;
    if (got.ok()) continue;
    EXPECT_EQ(got.error().code(), Code::kInvalidArgument);
    EXPECT_FALSE(got.error().hint().empty());
  }
}

TEST(Errors, QuoteTheRegistryAndHideSecrets) {
  http::Response reply;
  reply.status = 429;
  reply.headers.Add("Retry-After", "12");
  reply.body = "{\"errors\":[{\"code\":\"TOOMANYREQUESTS\",\"message\":\"slow\\u001b[31m down\"}]}";
  const Error error = ErrorFromReply(reply, "r/app: get", std::chrono::system_clock::now());
  EXPECT_EQ(error.code(), Code::kUnavailable);
  EXPECT_EQ(error.retry_after(), std::chrono::seconds(12));
  EXPECT_NE(error.message().find("TOOMANYREQUESTS: slow [31m down"), std::string::npos);
  EXPECT_EQ(ShownUrl("https://user:pw@h/path?X-Signature=s#f"), "https://h/path");
  for (const auto& [status, code] :
       std::vector<std::pair<int, Code>>{{401, Code::kUnauthenticated},
                                         {403, Code::kPermissionDenied},
                                         {404, Code::kNotFound},
                                         {405, Code::kUnsupported},
                                         {416, Code::kDataLoss},
                                         {500, Code::kUnavailable},
                                         {400, Code::kFailedPrecondition},
                                         {507, Code::kResourceExhausted}}) {
    reply.status = status;
    EXPECT_EQ(ErrorFromReply(reply, "x", {}).code(), code) << status;
  }
}

}  // namespace
}  // namespace davit::registry
