#include <gtest/gtest.h>

#include "storage/registry/manifest_document.h"
#include "storage/registry/oci.h"

namespace davit::oci {
namespace {

const std::string kHex(64, 'b');

std::string Desc(const std::string& type = "t/t", const std::string& extra = "") {
  return R"({"mediaType":")" + type + R"(","digest":"sha256:)" + kHex + R"(","size":7)" + extra +
         "}";
}

TEST(Manifest, RoundTripsAndIsStable) {
  Manifest manifest;
  manifest.media_type = std::string(kManifest);
  manifest.artifact_type = "a/b";
  manifest.config = DescribeContent(kConfig, "{}");
  manifest.layers = {DescribeContent(kLayerTarZstd, "x"), DescribeContent(kLayerTar, "")};
  manifest.layers[0].annotations = {{"z", "1"}, {"a", "\"quoted\" \xff"}};
  manifest.subject = DescribeContent(kManifest, "s");
  manifest.annotations = {{"k", "v"}};
  const std::string text = ToJson(manifest);
  EXPECT_EQ(text, ToJson(manifest));
  const auto parsed = ParseManifest(text);
  ASSERT_TRUE(parsed.ok()) << parsed.error().ToString();
  EXPECT_EQ(ToJson(*parsed), text);
  EXPECT_EQ(parsed->layers[0].digest, manifest.layers[0].digest);
  EXPECT_EQ(parsed->subject->size, 1U);
}

TEST(Index, RoundTripsWithPlatforms) {
  Index index;
  index.manifests = {DescribeContent(kManifest, "m")};
  index.manifests[0].platform = Platform::Parse("linux/arm/v7").value();
  index.manifests[0].platform->os_features = {"f"};
  const auto parsed = ParseIndex(ToJson(index));
  ASSERT_TRUE(parsed.ok()) << parsed.error().ToString();
  EXPECT_EQ(parsed->media_type, kIndex);
  EXPECT_EQ(parsed->manifests[0].platform, index.manifests[0].platform);
}

TEST(Documents, HostileJsonIsRefused) {
  const std::string ok_config = R"("schemaVersion":2,"config":)" + Desc();
  ASSERT_TRUE(ParseManifest("{" + ok_config + R"(,"layers":[]})").ok());
  for (const std::string& text : std::vector<std::string>{
           "",
           "null",
           "[]",
           "{",
           "{}",
           R"({"schemaVersion":1,"config":)" + Desc() + "}",
           R"({"schemaVersion":2})",
           "{" + ok_config + R"(,"layers":{}})",
           "{" + ok_config + R"(,"layers":[1]})",
           "{" + ok_config + R"(,"layers":[null]})",
           "{" + ok_config + R"(,"layers":[{"mediaType":"t","digest":"sha256:../../x","size":1}]})",
           "{" + ok_config + R"(,"layers":[{"mediaType":"t","digest":"sha256:)" + kHex +
               R"(","size":-1}]})",
           "{" + ok_config + R"(,"layers":[{"mediaType":"t","digest":"sha256:)" + kHex +
               R"(","size":18446744073709551615}]})",
           "{" + ok_config + R"(,"layers":[{"mediaType":"t","digest":"sha256:)" + kHex +
               R"(","size":1.5}]})",
           "{" + ok_config + R"(,"manifests":[]})",
           "{" + ok_config + R"(,"annotations":{"a":1}})",
           "{" + ok_config + R"(,"mediaType":"x/y"})",
           "{" + ok_config + R"(,"subject":[]})",
           std::string(100'000, '['),
           std::string(5 << 20, ' ')}) {
    const auto got = ParseManifest(text);
    EXPECT_FALSE(got.ok()) << text.substr(0, 200);
    if (!got.ok()) {
      EXPECT_EQ(got.error().code(), Code::kInvalidArgument);
    }
  }
  std::string many = R"({"schemaVersion":2,"manifests":[)";
  for (int i = 0; i < 10'001; ++i) many += (i > 0 ? "," : "") + Desc();
  EXPECT_FALSE(ParseIndex(many + "]}").ok());
  EXPECT_FALSE(ParseIndex(R"({"schemaVersion":2,"manifests":[],"layers":[]})").ok());
}

TEST(Documents, TypeConfusionIsRefused) {
  using registry::ManifestType;
  const std::string index = R"({"schemaVersion":2,"manifests":[]})";
  EXPECT_EQ(ManifestType(index, "").value(), kIndex);
  EXPECT_EQ(ManifestType(index, "application/vnd.oci.image.index.v1+json; charset=x").value(),
            kIndex);
  const std::string typed = R"({"mediaType":")" + std::string(kDockerManifest) + "\"}";
  EXPECT_EQ(ManifestType(typed, "text/plain").value(), kDockerManifest);
  EXPECT_EQ(ManifestType(typed, kIndex).error().code(), Code::kDataLoss);
  EXPECT_EQ(ManifestType("{}", "text/html").error().code(), Code::kUnsupported);
  EXPECT_FALSE(ManifestType("<html>", kIndex).ok());
}

TEST(Platform, ParsesAndMatches) {
  const Platform amd = Platform::Parse("linux/amd64").value();
  EXPECT_EQ(amd.ToString(), "linux/amd64");
  EXPECT_TRUE(
      Platform::Parse("linux/arm64/v8").value().Matches(Platform::Parse("linux/arm64").value()));
  EXPECT_TRUE(
      Platform::Parse("linux/arm64").value().Matches(Platform::Parse("linux/arm64/v8").value()));
  EXPECT_FALSE(
      Platform::Parse("linux/arm/v6").value().Matches(Platform::Parse("linux/arm/v7").value()));
  EXPECT_FALSE(amd.Matches(Platform::Parse("windows/amd64").value()));
  for (const char* bad : {"", "linux", "a/b/c/d", "linux/", "/amd64", "l x/y"})
    EXPECT_FALSE(Platform::Parse(bad).ok()) << bad;
  EXPECT_FALSE(Platform::Host().architecture.empty());
}

}  // namespace
}  // namespace davit::oci
