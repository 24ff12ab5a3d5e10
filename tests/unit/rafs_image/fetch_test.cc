// From a bootstrap layer in a repository to files that can be opened.

#include <gtest/gtest.h>
#include <sys/stat.h>

#include "common/base/fd.h"
#include "tests/support/raw_image/raw_image.h"
#include "tests/unit/rafs_image/fakes.h"

namespace davit::rafs {
namespace {

using testing::RawImage;

class FetchTest : public ::testing::Test {
 protected:
  FetchTest() : dir_(*TempDir::Create("rafs-fetch")), target_(dir_.path() + "/image") {}

  static std::string Bootstrap() {
    RawImage raw;
    raw.AddBlob(1, 4096);
    const auto root = raw.ReserveBlock();
    raw.PutDir(root, root, {});
    return raw.Build();
  }
  /// An image whose layer has this bootstrap and the metas of its blob and of a stranger.
  ImageRef Image(const std::string& bootstrap) {
    const auto layer = PackBootstrapLayer(
        AsBytes(bootstrap), {{storage::BlobId{RawImage::BlobIdOf(0)}, "meta"},
                             {storage::BlobId{std::string(64, 'f')}, "of no blob of it"}});
    repository_.PutManifest(RafsManifest(repository_, layer->gzip), "latest");
    return *FindImage({}, repository_, "latest", oci::Platform::Host());
  }
  std::vector<std::string> Files() { return *ListDirectory(target_); }

  TempDir dir_;
  std::string target_;
  FakeRepository repository_;
};

TEST_F(FetchTest, WritesTheBootstrapAndTheMetasOfItsBlobs) {
  const ImageRef image = Image(Bootstrap());
  auto status = FetchBootstrap({}, repository_, image, target_);
  ASSERT_TRUE(status.ok()) << status.error().ToString();
  EXPECT_EQ(Files(),
            (std::vector<std::string>{RawImage::BlobIdOf(0) + ".blob.meta", "image.boot"}));
  EXPECT_EQ(*ReadFile(target_ + "/image.boot"), Bootstrap());
  const auto metadata = OpenBootstrap(target_);
  ASSERT_TRUE(metadata.ok()) << metadata.error().ToString();
  EXPECT_EQ((*metadata)->blobs().size(), 1U);
  // A second call costs nothing.
  repository_.blobs.clear();
  EXPECT_TRUE(FetchBootstrap({}, repository_, image, target_).ok());
  EXPECT_EQ(repository_.downloads, 1);
}

TEST_F(FetchTest, WhatCannotBeOpenedIsNotKept) {
  const ImageRef image = Image("not a bootstrap");
  const auto status = FetchBootstrap({}, repository_, image, target_);
  EXPECT_EQ(Outcome(status), "data_loss");
  EXPECT_NE(status.error().message().find(image.bootstrap.digest), std::string::npos);
  EXPECT_TRUE(Files().empty());
  EXPECT_EQ(Outcome(OpenBootstrap(target_)), "not_found");
}

TEST_F(FetchTest, AFailedDownloadLeavesNothingAndCanBeRepeated) {
  const ImageRef image = Image(Bootstrap());
  const auto kept = repository_.blobs;
  repository_.blobs.clear();
  EXPECT_EQ(Outcome(FetchBootstrap({}, repository_, image, target_)), "not_found");
  EXPECT_TRUE(Files().empty());
  // A layer that is longer than its descriptor says.
  repository_.blobs = kept;
  repository_.blobs[image.bootstrap.digest] += "more";
  EXPECT_EQ(Outcome(FetchBootstrap({}, repository_, image, target_)), "data_loss");
  EXPECT_TRUE(Files().empty());
  repository_.blobs = kept;
  EXPECT_TRUE(FetchBootstrap({}, repository_, image, target_).ok());
}

TEST_F(FetchTest, LayersAboveTheLimitAreNotDownloaded) {
  ImageRef image = Image(Bootstrap());
  image.bootstrap.size = 5ULL << 30;
  EXPECT_EQ(Outcome(FetchBootstrap({}, repository_, image, target_)), "resource_exhausted");
  EXPECT_EQ(repository_.downloads, 0);
}

}  // namespace
}  // namespace davit::rafs
