// Which manifest of a reference is the RAFS one.

#include <gtest/gtest.h>

#include "tests/unit/rafs_image/fakes.h"

namespace davit::rafs {
namespace {

oci::Platform Amd64() { return *oci::Platform::Parse("linux/amd64"); }
oci::Platform Arm64() { return *oci::Platform::Parse("linux/arm64"); }

class FindTest : public ::testing::Test {
 protected:
  Result<ImageRef> Find(const std::string& tag = "latest") {
    return FindImage({}, repository_, tag, Amd64());
  }
  static oci::Descriptor On(oci::Descriptor descriptor, oci::Platform platform,
                            std::vector<std::string> features = {}) {
    platform.os_features = std::move(features);
    descriptor.platform = std::move(platform);
    return descriptor;
  }
  void PutIndex(std::vector<oci::Descriptor> manifests) {
    oci::Index index;
    index.media_type = oci::kIndex;
    index.manifests = std::move(manifests);
    repository_.PutIndex(index, "latest");
  }
  FakeRepository repository_;
};

TEST_F(FindTest, TheManifestItself) {
  const auto manifest = RafsManifest(repository_, "boot");
  EXPECT_TRUE(IsRafsManifest(manifest));
  const auto descriptor = repository_.PutManifest(manifest, "latest");
  const auto found = Find();
  ASSERT_TRUE(found.ok()) << found.error().ToString();
  EXPECT_EQ(found->found_by, "manifest");
  EXPECT_EQ(found->manifest.descriptor.digest, descriptor.digest);
  EXPECT_EQ(found->bootstrap.digest, manifest.layers.back().digest);
}

TEST_F(FindTest, AnOrdinaryImageIsNamedAsSuch) {
  EXPECT_FALSE(IsRafsManifest(OrdinaryManifest(repository_)));
  repository_.PutManifest(OrdinaryManifest(repository_), "latest");
  const auto found = Find();
  EXPECT_EQ(Outcome(found), "not_found");
  EXPECT_NE(found.error().ToString().find("2 layers"), std::string::npos);
  EXPECT_NE(found.error().ToString().find("davit convert"), std::string::npos);
  EXPECT_EQ(Outcome(Find("missing")), "not_found");
}

TEST_F(FindTest, ByOsFeatureInAnIndex) {
  const auto plain = repository_.PutManifest(OrdinaryManifest(repository_));
  const auto rafs = repository_.PutManifest(RafsManifest(repository_, "amd64"));
  const auto arm = repository_.PutManifest(RafsManifest(repository_, "arm64"));
  PutIndex({On(plain, Amd64()), On(arm, Arm64(), {std::string(kOsFeature)}),
            On(rafs, Amd64(), {std::string(kOsFeature)})});
  repository_.reads = 0;
  const auto found = Find();
  ASSERT_TRUE(found.ok()) << found.error().ToString();
  EXPECT_EQ(found->found_by, "index");
  EXPECT_EQ(found->manifest.descriptor.digest, rafs.digest);
  EXPECT_EQ(found->platform->architecture, "amd64");
  EXPECT_EQ(repository_.reads, 2);  // the index and the marked one, no probing
}

TEST_F(FindTest, ByProbingAnIndexWithoutMarks) {
  const auto plain = repository_.PutManifest(OrdinaryManifest(repository_));
  const auto rafs = repository_.PutManifest(RafsManifest(repository_, "amd64"));
  PutIndex({On(plain, Amd64()), On(rafs, Amd64())});
  const auto found = Find();
  ASSERT_TRUE(found.ok()) << found.error().ToString();
  EXPECT_EQ(found->manifest.descriptor.digest, rafs.digest);
}

TEST_F(FindTest, AnotherPlatformIsNotTaken) {
  const auto arm = repository_.PutManifest(RafsManifest(repository_, "arm64"));
  PutIndex({On(arm, Arm64(), {std::string(kOsFeature)})});
  const auto found = Find();
  EXPECT_EQ(Outcome(found), "not_found");
  EXPECT_NE(found.error().message().find("linux/arm64"), std::string::npos);
}

TEST_F(FindTest, ByReferrerOfAManifestAndOfAnIndexEntry) {
  const auto plain = repository_.PutManifest(OrdinaryManifest(repository_), "latest");
  auto manifest = RafsManifest(repository_, "amd64");
  manifest.artifact_type = kArtifactType;
  manifest.subject = plain;
  const auto rafs = repository_.PutManifest(manifest);
  auto found = Find();
  ASSERT_TRUE(found.ok()) << found.error().ToString();
  EXPECT_EQ(found->found_by, "referrer");
  EXPECT_EQ(found->manifest.descriptor.digest, rafs.digest);
  PutIndex({On(plain, Amd64())});
  found = Find();
  ASSERT_TRUE(found.ok()) << found.error().ToString();
  EXPECT_EQ(found->found_by, "referrer");
  EXPECT_EQ(found->platform->architecture, "amd64");
}

TEST_F(FindTest, AReferrerOfSomethingElseIsNotTaken) {
  const auto plain = repository_.PutManifest(OrdinaryManifest(repository_), "latest");
  auto manifest = RafsManifest(repository_, "other");
  manifest.artifact_type = kArtifactType;
  manifest.subject = manifest.config;
  auto liar = repository_.PutManifest(manifest);
  liar.artifact_type = kArtifactType;
  repository_.referrers[plain.digest] = {liar};
  EXPECT_EQ(Outcome(Find()), "not_found");
}

TEST_F(FindTest, RegistriesWithoutReferrersAndBrokenOnes) {
  repository_.PutManifest(OrdinaryManifest(repository_), "latest");
  repository_.referrers_error = Error(Code::kUnsupported, "no such API");
  EXPECT_EQ(Outcome(Find()), "not_found");
  // "Could not ask" must not look like "there is none".
  repository_.referrers_error = Error(Code::kUnavailable, "connection refused");
  EXPECT_EQ(Outcome(Find()), "unavailable");
}

TEST_F(FindTest, WhatCannotBeReadIsRefusedByName) {
  repository_.PutManifest(RafsManifest(repository_, "v5", "5"), "latest");
  auto found = Find();
  EXPECT_EQ(Outcome(found), "unsupported");
  EXPECT_NE(found.error().message().find("v5"), std::string::npos);
  auto encrypted = RafsManifest(repository_, "secret");
  encrypted.layers.back().media_type += "+encrypted";
  repository_.PutManifest(encrypted, "latest");
  EXPECT_EQ(Outcome(Find()), "unsupported");
  auto empty = OrdinaryManifest(repository_);
  empty.artifact_type = kArtifactType;
  repository_.PutManifest(empty, "latest");
  EXPECT_EQ(Outcome(Find()), "data_loss");
}

}  // namespace
}  // namespace davit::rafs
